// Asks for the page again and again, and changes only what differs, so that nothing flickers, scrolls or folds.
(function () {
  var main = document.querySelector("main"), root = document.documentElement;
  // The page as the server has it: the one here may have been changed by a reader, or by its own scripts. Only what differs from one version of the
  // server to the next is changed here, so an open fold stays open.
  var known = "", last = null, busy = false;
  // Scripts of the page build upon these. When they change, the page is loaded again.
  function scripted(main) {
    return Array.from(main.querySelectorAll(".flips")).map(function (one) { return one.outerHTML; }).join("");
  }
  function kind(node) {
    if (node.nodeType !== 1) return node.nodeName;
    var title = /^H\d$/.test(node.nodeName) ? node : node.nodeName === "DETAILS" ? node.querySelector("summary") : null;
    return node.nodeName + (title ? title.textContent.replace(/\d+/g, "") : "");
  }
  function attributes(live, old, now) {
    Array.from(now.attributes).forEach(function (one) {
      if (old.getAttribute(one.name) !== one.value && one.name !== "open") live.setAttribute(one.name, one.value);
    });
    Array.from(old.attributes).forEach(function (one) {
      if (!now.hasAttribute(one.name) && one.name !== "open") live.removeAttribute(one.name);
    });
  }
  function update(live, old, now) {
    if (old.isEqualNode(now)) return;
    if (now.nodeType !== 1) { live.nodeValue = now.nodeValue; return; }
    attributes(live, old, now);
    var before = Array.from(old.childNodes), after = Array.from(now.childNodes), there = Array.from(live.childNodes);
    if (there.length !== before.length) {
      live.replaceChildren.apply(live, after.map(function (node) { return document.importNode(node, true); }));
      return;
    }
    var start = 0, end = 0, most = Math.min(before.length, after.length);
    while (start < most && kind(before[start]) === kind(after[start])) start++;
    while (end < most - start && kind(before[before.length - 1 - end]) === kind(after[after.length - 1 - end])) end++;
    var rest = there[before.length - end] || null;
    there.slice(start, before.length - end).forEach(function (node) { node.remove(); });
    after.slice(start, after.length - end).forEach(function (node) { live.insertBefore(document.importNode(node, true), rest); });
    for (var i = 0; i < start; i++) update(there[i], before[i], after[i]);
    for (var j = 1; j <= end; j++) update(there[there.length - j], before[before.length - j], after[after.length - j]);
  }
  function poll() {
    if (busy || document.hidden) return;
    busy = true;
    fetch("/", { cache: "no-store", headers: { "If-None-Match": '"' + known + '"' } }).then(function (response) {
      root.classList.remove("lost");
      if (response.status !== 200) return;
      var version = (response.headers.get("ETag") || "").replace(/"/g, "");
      return response.text().then(function (text) {
        var read = new DOMParser().parseFromString(text, "text/html"), now = read.querySelector("main");
        if (!now) return;
        if (last && scripted(last) !== scripted(now)) { location.reload(); return; }
        if (last) update(main, last, now);
        document.title = read.title;
        last = now;
        known = version;
      });
    }).catch(function () { root.classList.add("lost"); }).then(function () { busy = false; });
  }
  poll();
  setInterval(poll, 2000);
  document.addEventListener("visibilitychange", poll);
})();
