//! A bare repository in a temporary folder, and a working copy that pushes to it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

pub struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    pub fn new() -> Self {
        let repository = Self { folder: tempfile::tempdir().expect("a temporary folder can be made") };
        fs::create_dir(repository.work()).expect("folders can be made");
        repository.git(&["init", "--quiet", "--bare", "--initial-branch=main", &repository.bare().display().to_string()]);
        repository.git(&["init", "--quiet", "--initial-branch=main", "."]);
        repository.git(&["remote", "add", "origin", &repository.bare().display().to_string()]);
        repository
    }

    /// One with a release in it.
    pub fn with_release(version: &str) -> Self {
        let repository = Self::new();
        repository.release(".", version);
        repository.push("first");
        repository
    }

    /// What a server serves: holds `deploy.git`.
    pub fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn bare(&self) -> PathBuf {
        self.folder.path().join("deploy.git")
    }

    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folders can be made");
        fs::write(path, text).expect("files can be written");
    }

    /// A release with two migrations, in a folder.
    pub fn release(&self, folder: &str, version: &str) {
        self.write(
            &format!("{folder}/release.yaml"),
            format!("version: {version}\nconfig: {{VERSION: '{version}'}}\nmigrations: migrations\n"),
        );
        self.write(&format!("{folder}/migrations/0001_a.up.sql"), "CREATE TABLE a (id INT);\n");
        self.write(&format!("{folder}/migrations/0001_a.down.sql"), "DROP TABLE a;\n");
    }

    /// Commits everything; returns the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.head()
    }

    /// Commits everything and pushes; returns the commit's id.
    pub fn push(&self, message: &str) -> String {
        let id = self.commit(message);
        self.publish();
        id
    }

    /// Makes the server's branches and tags those of the working copy.
    pub fn publish(&self) {
        self.git(&["push", "--quiet", "--force", "--prune", "origin", "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"]);
    }

    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, &[])
    }

    /// Writes an object as it is given, however odd; returns its id.
    pub fn object(&self, kind: &str, raw: &[u8]) -> String {
        self.git_with(&["hash-object", "-t", kind, "-w", "--stdin", "--literally"], raw)
    }

    pub fn raw(&self, id: &str) -> Vec<u8> {
        let kind = self.git(&["cat-file", "-t", id]);
        self.command(&["cat-file", &kind, id]).output().expect("git can be run").stdout
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=Liqui Developer", "-c", "user.email=developer@liqui.example", "-c", "gc.auto=0"])
            .args(arguments)
            .current_dir(self.work())
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0");
        command
    }

    fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        use std::io::Write;
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("git can be run: these tests need it");
        child.stdin.take().expect("it was asked for").write_all(input).expect("git takes its input");
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
