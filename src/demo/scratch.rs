//! A directory of its own for the configuration, the state and the log; gone when the
//! demonstration is.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::policy::arm::PerArm;

/// The directory.
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new directory in the system's place for such things.
    pub(super) fn new() -> io::Result<Self> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("cutover-demo-{:08x}", u32::from_ne_bytes(random));
        let path = std::env::temp_dir().join(name);
        // Fails where something has that name already, so nobody can prepare it for us.
        std::fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// The configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.path.join("cutover.yaml")
    }

    /// Where the proxy's log goes.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("serve.log")
    }

    /// Writes the configuration that the demonstration runs with.
    pub(super) fn write_config(
        &self,
        listen: SocketAddr,
        admin: SocketAddr,
        apis: PerArm<SocketAddr>,
    ) -> io::Result<()> {
        std::fs::write(self.config(), config(listen, admin, apis))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // There is nobody left to tell, and the system cleans its temporary directory some day.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn config(listen: SocketAddr, admin: SocketAddr, apis: PerArm<SocketAddr>) -> String {
    let PerArm { legacy, new } = apis;
    format!(
        "\
# Written by `cutover demo`. Change the share and save: the next request obeys.
listeners:
  - address: {listen}
admin: {{address: \"{admin}\"}}
state: {{directory: state}}
drain: {{deadline: 3s}}

backends:
  legacy-api: {{endpoints: [\"{legacy}\"]}}
  new-api: {{endpoints: [\"{new}\"]}}

splits:
  api:
    legacy: legacy-api
    new: new-api
    share: 10%
    key: [{{cookie: session}}]
    response_headers: true
    rollback:
      - error_rate > 5%
      - p95 > 500ms

routes:
  - {{split: api}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_and_what_is_in_it_go_with_the_demonstration() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path.clone();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let apis = PerArm {
            legacy: address(9001),
            new: address(9002),
        };
        let any = address(0);
        scratch.write_config(any, any, apis).unwrap();
        crate::config::load(&scratch.config()).unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
