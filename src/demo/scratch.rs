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

/// Where everything listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) apis: PerArm<SocketAddr>,
}

/// A rollout as the file describes it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rollout<'a> {
    /// The engine takes the split through the stages.
    Planned {
        /// Its id.
        id: &'a str,
    },
    /// Half of the sessions, and it is for a person to say how it goes on.
    Half {
        /// Its id.
        id: &'a str,
    },
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
    pub(super) fn write_config(&self, places: Places, rollout: Rollout<'_>) -> io::Result<()> {
        std::fs::write(self.config(), config(places, rollout))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // There is nobody left to tell, and the system cleans its temporary directory some day.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn config(places: Places, rollout: Rollout<'_>) -> String {
    let Places {
        listen,
        admin,
        apis: PerArm { legacy, new },
    } = places;
    let course = match rollout {
        Rollout::Planned { id } => format!("{PLAN}    rollout: {{id: {id}, {PACE}}}\n"),
        Rollout::Half { id } => format!("    share: 50%\n    rollout: {{id: {id}}}\n"),
    };
    format!(
        "\
# Written by `cutover demo`. Change `rollout.id` and save: another rollout begins.
listeners:
  - address: {listen}
admin: {{address: \"{admin}\"}}
state: {{directory: state}}
drain: {{deadline: 3s}}

backends:
  legacy-api: {{endpoints: [\"{legacy}\"]}}
  new-api: {{endpoints: [\"{new}\"], timeouts: {{first_byte: 2s}}}}

splits:
  api:
    legacy: legacy-api
    new: new-api
    key: [{{cookie: session}}]
    response_headers: true
    rollback:
      - error_rate > 5%
      - p95 > 500ms
      - error_rate worse than legacy by 25%
      - p95 worse than legacy by 10%
{course}
routes:
  - {{split: api}}
"
    )
}

/// The plan. What it needs can be proven in seconds: some 300 requests of `new` without an error.
/// The defaults, 1 % and half a point, need some 600 and some 1 200.
const PLAN: &str = "    \
    # Time is compressed: a stage that should last for hours lasts for seconds here, so it proves
    # less than the defaults ask for.
    stages: [0%, 10%, 30%, 50%, 80%, 100%]
    advance:
      - error_rate < 2%
      - p95 < 300ms
      - error_rate not worse than legacy by 2pp
      - client_error_rate not worse than legacy by 2pp
";

/// Requests enough for each session to come while a tenth of them is on `new`.
const PACE: &str = "observe: 2s, min_requests: 300";

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
        let places = Places {
            listen: address(0),
            admin: address(0),
            apis,
        };
        for rollout in [
            Rollout::Planned { id: "first" },
            Rollout::Half { id: "slow" },
        ] {
            scratch.write_config(places, rollout).unwrap();
            crate::config::load(&scratch.config()).unwrap();
        }
        drop(scratch);
        assert!(!path.exists());
    }
}
