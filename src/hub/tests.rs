//! Tests of what needs no server.

use super::file_list::{RepoFile, RepoFiles, missing_files};
use super::settings::HubConfig;
use super::{ModelLocation, RepoId, cache, cached, locate, repo_id_of};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

#[test]
fn names_are_told_from_paths() {
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

fn settings(variables: &[(&str, &str)]) -> crate::Result<HubConfig> {
    let all: HashMap<&str, &str> = variables.iter().copied().collect();
    HubConfig::read(&|name| all.get(name).map(OsString::from))
}

#[test]
fn the_environment_means_what_it_means_to_the_hubs_own_tools() {
    let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache.display().to_string();
    assert_eq!(cache(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
    assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
    assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/f")]), "/f/hub");
    assert_eq!(cache(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), "/c");
    assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "")]), "/h/.cache/huggingface/hub");
    let with = |name: &str, value: &str| settings(&[("HOME", "/h"), (name, value)]).unwrap();
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
        let error = settings(variables).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
    }
}

#[test]
fn certificates_are_read_and_a_file_without_any_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("none.pem");
    std::fs::write(&file, "nothing").unwrap();
    let mut settings = settings(&[("HOME", "/h"), ("SSL_CERT_FILE", file.to_str().unwrap())]).unwrap();
    if crate::io::tls::config(settings.certificates.as_deref()).is_ok_and(|config| config.is_none()) {
        return;
    }
    let error = crate::io::tls::config(settings.certificates.as_deref()).err().unwrap();
    assert!(error.exit_code() == 2 && error.to_string().contains("none.pem holds no certificate"), "{error}");
    settings.certificates = None;
    assert!(crate::io::tls::config(settings.certificates.as_deref()).unwrap().is_some());
}

fn listing(names: &[&str]) -> RepoFiles {
    let entry = |name: &&str| RepoFile { name: name.to_string(), size: Some(1), sha256: None, blob: "0".into() };
    RepoFiles { commit: "c".into(), entries: names.iter().map(entry).collect() }
}

#[test]
fn what_a_checkpoint_needs_is_chosen() {
    let small = [
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
        "vocab.json",
    ];
    let others =
        ["README.md", ".gitattributes", "onnx/config.json", "training_args.bin", "trainer_state.json", "tokenizer.py"];
    assert_eq!(listing(&[&small[..], &others].concat()).config_files(), small);
    let weights = |names: &[&str]| listing(names).weights().map(|w| (w.given, w.index));
    let index = "model.safetensors.index.json";
    assert_eq!(weights(&["model.safetensors", index]).unwrap(), (vec!["model.safetensors".to_string()], None));
    assert_eq!(weights(&["model-00001-of-00001.safetensors", index]).unwrap(), (vec![], Some(index.to_string())));
    let error = weights(&["pytorch_model.bin"]).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("pytorch_model.bin"), "{error}");
}

#[test]
fn an_index_is_read_with_care() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"a": "x.safetensors", "b": "x.safetensors", "c": "y.safetensors"}}"#)
        .unwrap();
    std::fs::write(dir.path().join("y.safetensors"), "").unwrap();
    assert_eq!(missing_files(dir.path()).unwrap(), ["config.json", "tokenizer.json", "x.safetensors"]);
    assert_eq!(
        listing(&["x.safetensors", "y.safetensors"]).shards(&index).unwrap(),
        ["x.safetensors", "y.safetensors"]
    );
    let error = listing(&["x.safetensors"]).shards(&index).unwrap_err().to_string();
    assert!(error.contains("names y.safetensors, which the repository does not have"), "{error}");
    std::fs::write(&index, r#"{"weight_map": {"a": "../../x"}}"#).unwrap();
    assert!(listing(&[]).shards(&index).unwrap_err().to_string().contains("`../../x` is no name of a weight file"));
}

#[test]
fn an_adapter_with_a_configuration_beside_it_lacks_no_model() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["adapter_config.json", "config.json", "tokenizer.json"] {
        std::fs::write(dir.path().join(name), "{}").unwrap();
    }
    assert_eq!(missing_files(dir.path()).unwrap(), ["adapter_model.safetensors"]);
    std::fs::write(dir.path().join("adapter_model.safetensors"), "x").unwrap();
    assert!(missing_files(dir.path()).unwrap().is_empty());
}

#[test]
fn a_snapshot_has_the_name_and_commit_that_find_it_again() {
    let home = tempfile::tempdir().unwrap();
    let settings = settings(&[("HF_HUB_CACHE", home.path().to_str().unwrap())]).unwrap();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let dir = home.path().join("models--acme--tiny/cache").join(commit);
    std::fs::create_dir_all(&dir).unwrap();
    assert_eq!(repo_id_of(&dir, &settings), None, "it is not whole");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::write(dir.join(name), "{}").unwrap();
    }
    let name = repo_id_of(&dir, &settings).unwrap();
    assert_eq!((name.id.as_str(), name.revision.as_str()), ("acme/tiny", commit));
    assert_eq!(
        cached(Path::new(&name.to_string()), &settings).unwrap().canonicalize().unwrap(),
        dir.canonicalize().unwrap()
    );
    let other = tempfile::tempdir().unwrap();
    let elsewhere = HubConfig { cache: other.path().to_path_buf(), ..settings.clone() };
    assert_eq!(repo_id_of(&dir, &elsewhere), None, "another cache");
    assert_eq!(repo_id_of(home.path(), &settings), None);
    assert_eq!(repo_id_of(&home.path().join("nowhere"), &settings), None);
}

#[test]
fn a_download_needs_room() {
    let name = RepoId::parse("a/b").unwrap();
    let room = |free| cache::check_disk_space(Path::new("/c"), 7_500_000_000, &name, free);
    assert!(room(None).is_ok() && room(Some(7_500_000_000)).is_ok());
    let error = room(Some(100_000_000)).unwrap_err();
    let said = error.to_string();
    assert!(error.exit_code() == 1 && said.contains("7.50 GB are needed, 100 MB are free in /c"), "{said}");
}
