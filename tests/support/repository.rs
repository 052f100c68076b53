//! A bare repository on the bed's git server and a working copy that pushes to it over HTTP.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::bed::variable;

pub struct Repository {
    work: tempfile::TempDir,
    pub name: String,
}

impl Repository {
    /// Makes `name.git` on the server, anew if it is there, with branch main.
    pub fn new(name: &str) -> Self {
        let bare = PathBuf::from(variable("BED_GIT_ROOT")).join(format!("{name}.git"));
        if bare.exists() {
            fs::remove_dir_all(&bare).expect("the old repository can be removed");
        }
        let work = tempfile::tempdir().expect("a temporary folder can be made");
        let repository = Self { work, name: name.to_owned() };
        repository.git(&["init", "--quiet", "--bare", "--initial-branch=main", &bare.display().to_string()]);
        repository.git(&["--git-dir", &bare.display().to_string(), "config", "http.receivepack", "true"]);
        repository.git(&["init", "--quiet", "--initial-branch=main", "."]);
        let (user, password) = (variable("BED_GIT_USER"), variable("BED_GIT_PASSWORD"));
        let url = repository.url().replace("http://", &format!("http://{user}:{password}@"));
        repository.git(&["remote", "add", "origin", &url]);
        repository
    }

    /// As a Release names it.
    pub fn url(&self) -> String {
        format!("{}/{}.git", variable("BED_GIT_URL"), self.name)
    }

    /// The same over TLS.
    pub fn tls_url(&self) -> String {
        format!("{}/{}.git", variable("BED_GIT_TLS_URL"), self.name)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.work.path().join(path);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folders can be made");
        fs::write(path, text).expect("files can be written");
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.work.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn copy(&self, from: &Path, to: &str) {
        self.write(to, &fs::read_to_string(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())));
    }

    /// Removes a file or folder, if it is there.
    pub fn remove(&self, path: &str) {
        let path = self.work.path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("folders can be removed");
        } else if path.exists() {
            fs::remove_file(path).expect("files can be removed");
        }
    }

    /// Commits everything and pushes; returns the commit's id.
    pub fn push(&self, subject: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject]);
        self.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
        self.head()
    }

    /// Reverts the newest commit and pushes.
    pub fn revert(&self) -> String {
        self.git(&["revert", "--no-edit", "HEAD"]);
        self.git(&["push", "--quiet", "origin", "HEAD:main"]);
        self.head()
    }

    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Liqui Developer", "-c", "user.email=developer@liqui.example"])
            .args(arguments)
            .current_dir(self.work.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .output()
            .expect("git can be run");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
