//! The bed's own servers, stopped and started by a test that has them for itself.

use std::process::Command;

use super::bed::variable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    ApiServer,
    Containerd,
    Git,
    KubeProxy,
    Kubelet,
    MariaDb,
    Redis,
}

impl Part {
    pub const ALL: [Self; 7] = [Self::ApiServer, Self::Containerd, Self::Git, Self::KubeProxy, Self::Kubelet, Self::MariaDb, Self::Redis];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiServer => "apiserver",
            Self::Containerd => "containerd",
            Self::Git => "git",
            Self::KubeProxy => "proxy",
            Self::Kubelet => "kubelet",
            Self::MariaDb => "mariadb",
            Self::Redis => "redis",
        }
    }

    /// SIGKILL: nothing is finished, flushed or said.
    pub async fn kill(self) {
        bed(&["stop", "--kill", self.as_str()]).await;
    }

    /// Starts it, if it does not run, and waits until it answers.
    pub async fn start(self) {
        bed(&["start", self.as_str()]).await;
    }
}

async fn bed(arguments: &[&str]) {
    // The one that started these tests.
    let _ = variable("BED");
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/bed"));
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic").expect("bed can be run");
    assert!(output.status.success(), "bed {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
