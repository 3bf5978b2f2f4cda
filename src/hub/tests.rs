//! Tests of what needs no server.

use super::{HubConfig, ModelLocation, RepoId, cache, cached, locate, repo_id_of};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

#[test]
fn names_on_the_hub_are_distinguished_from_paths() {
    let name = |text: &str| RepoId::parse(text).map(|name| (name.id, name.revision));
    let given = |id: &str, revision: &str| Some((id.to_string(), revision.to_string()));
    assert_eq!(name("Qwen/Qwen2.5-VL-3B-Instruct"), given("Qwen/Qwen2.5-VL-3B-Instruct", "main"));
    assert_eq!(name("a/b@refs/pr/1"), given("a/b", "refs/pr/1"));
    assert_eq!(name("a/b@v1.0"), given("a/b", "v1.0"));
    for other in [
        "a", "a/", "/b", "a/b/c", "./a/b", "../b", "a/../b", "~/b", "a/.b", "a/b@", "a/b@../x", "a/b@x//y", "a b/c",
        "a/b:c", "a--b/c", "-a/b", "runs/x/", "a/b?c", "a\\b/c", "é/b",
    ] {
        assert_eq!(name(other), None, "{other}");
    }
    assert!(RepoId::parse(&format!("a/b@{}", "0".repeat(40))).unwrap().is_commit());
    assert!(!RepoId::parse("a/b@0000000").unwrap().is_commit());
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(locate(dir.path()).unwrap(), ModelLocation::Local(dir.path().to_path_buf()));
    assert!(matches!(locate(Path::new("no-such-owner/name")).unwrap(), ModelLocation::Hub(_)));
    let error = locate(Path::new("no-such-directory")).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("form owner/name"), "{error}");
}

fn hub_config(variables: &[(&str, &str)]) -> crate::Result<HubConfig> {
    let all: HashMap<&str, &str> = variables.iter().copied().collect();
    HubConfig::read(&|name| all.get(name).map(OsString::from))
}

#[test]
fn environment_variables_mean_the_same_as_for_hugging_faces_own_tools() {
    let cache = |variables: &[(&str, &str)]| hub_config(variables).unwrap().cache.display().to_string();
    assert_eq!(cache(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
    assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
    assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/f")]), "/f/hub");
    assert_eq!(cache(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), "/c");
    assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "")]), "/h/.cache/huggingface/hub");
    let with = |name: &str, value: &str| hub_config(&[("HOME", "/h"), (name, value)]).unwrap();
    assert_eq!(with("HF_ENDPOINT", "http://a:1/").endpoint, "http://a:1");
    assert_eq!(with("HF_TOKEN", " t\n").token.as_deref(), Some("t"));
    for (value, offline) in [("1", true), ("TRUE", true), ("yes", true), ("0", false), ("", false), ("no", false)] {
        assert_eq!(with("HF_HUB_OFFLINE", value).offline.is_some(), offline, "{value}");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "stored\n").unwrap();
    let home = dir.path().display().to_string();
    assert_eq!(with("HF_HOME", &home).token.as_deref(), Some("stored"));
    assert_eq!(with("HF_TOKEN_PATH", &format!("{home}/token")).token.as_deref(), Some("stored"));
    assert_eq!(with("HF_HOME", "/nowhere").token, None);
    for (variables, said) in [
        (&[("HOME", "/h"), ("HF_ENDPOINT", "ftp://a")][..], "HF_ENDPOINT is ftp://a"),
        (&[("HOME", "/h"), ("HF_ENDPOINT", "https://")], "HF_ENDPOINT"),
        (&[], "set HF_HOME"),
    ] {
        let error = hub_config(variables).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_certificate_file_without_certificates_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("none.pem");
    std::fs::write(&file, "nothing").unwrap();
    let mut config = hub_config(&[("HOME", "/h"), ("SSL_CERT_FILE", file.to_str().unwrap())]).unwrap();
    if crate::io::tls::config(config.certificates.as_deref()).is_ok_and(|config| config.is_none()) {
        return;
    }
    let error = crate::io::tls::config(config.certificates.as_deref()).err().unwrap();
    assert!(error.exit_code() == 2 && error.to_string().contains("none.pem holds no certificate"), "{error}");
    config.certificates = None;
    assert!(crate::io::tls::config(config.certificates.as_deref()).unwrap().is_some());
}

fn missing(dir: &Path) -> crate::Result<Vec<String>> {
    Ok(if dir.join("config.json").is_file() { Vec::new() } else { vec!["config.json".into()] })
}

#[test]
fn a_snapshot_directory_gives_the_name_and_commit_that_find_it_again() {
    let home = tempfile::tempdir().unwrap();
    let config = hub_config(&[("HF_HUB_CACHE", home.path().to_str().unwrap())]).unwrap();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let dir = home.path().join("models--acme--tiny/snapshots").join(commit);
    std::fs::create_dir_all(&dir).unwrap();
    assert_eq!(repo_id_of(&dir, &config, &missing), None, "it is not whole");
    std::fs::write(dir.join("config.json"), "{}").unwrap();
    let name = repo_id_of(&dir, &config, &missing).unwrap();
    assert_eq!((name.id.as_str(), name.revision.as_str()), ("acme/tiny", commit));
    assert_eq!(
        cached(Path::new(&name.to_string()), &config, &missing).unwrap().canonicalize().unwrap(),
        dir.canonicalize().unwrap()
    );
    let other = tempfile::tempdir().unwrap();
    let elsewhere = HubConfig { cache: other.path().to_path_buf(), ..config.clone() };
    assert_eq!(repo_id_of(&dir, &elsewhere, &missing), None, "another cache");
    assert_eq!(repo_id_of(home.path(), &config, &missing), None);
    assert_eq!(repo_id_of(&home.path().join("nowhere"), &config, &missing), None);
}

#[test]
fn a_download_that_does_not_fit_on_the_disk_is_refused() {
    let name = RepoId::parse("a/b").unwrap();
    let room = |free| cache::check_disk_space(Path::new("/c"), 7_500_000_000, &name, free);
    assert!(room(None).is_ok() && room(Some(7_500_000_000)).is_ok());
    let error = room(Some(100_000_000)).unwrap_err();
    let said = error.to_string();
    assert!(error.exit_code() == 1 && said.contains("7.50 GB are needed, 100 MB are free in /c"), "{said}");
}
