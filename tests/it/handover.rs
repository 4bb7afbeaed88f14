//! The running program is replaced by another, and no request notices.

mod load;

use std::path::Path;
use std::process::Command;

use self::load::{Load, echo};
use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::Upstream;

/// A process that nobody else will end. It was started by one of ours, and takes its admin address.
struct Heir(u32);

impl Drop for Heir {
    fn drop(&mut self) {
        // It may have ended by itself.
        let number = self.0.to_string();
        let _ = Command::new("kill").args(["-9", &number]).status();
    }
}

impl Heir {
    /// Waits until another process than this one answers at the admin address.
    async fn of(proxy: &Proxy, earlier: u32) -> Self {
        let mut heir = earlier;
        eventually("another process has taken over", async || {
            heir = proxy.status().await.process;
            heir != earlier
        })
        .await;
        Self(heir)
    }
}

fn plain(upstream: &Upstream) -> String {
    let endpoint = upstream.address();
    format!("backends: {{api: {{endpoints: ['{endpoint}']}}}}\nroutes: [{{backend: api}}]\n")
}

/// Has the link that a site's program was started by lead elsewhere.
fn relink(site: &Site, to: impl AsRef<Path>) {
    let draft = site.path().join("draft-link");
    std::os::unix::fs::symlink(to, &draft).expect("the directory is writable");
    std::fs::rename(draft, site.path().join("cutover")).expect("the directory is writable");
}

#[tokio::test]
async fn sigusr2_replaces_the_process_under_load_and_no_request_is_lost() {
    let upstream = echo();
    let mut proxy = Site::new().linked().start(&plain(&upstream)).await;
    let load = Load::begin(proxy.address());
    load.goes_on(300).await;
    proxy.signal("USR2");
    let heir = Heir::of(&proxy, proxy.process()).await;
    load.goes_on(300).await;
    assert_eq!(proxy.ended().await.code(), Some(0), "the old one leaves");
    load.goes_on(300).await;
    load.ends_without_loss().await;
    proxy
        .counts(1.0, "cutover_handovers_total", &[("result", "taken_over")])
        .await;
    drop(heir);
}

#[tokio::test]
async fn a_successor_that_is_none_leaves_the_old_process_in_charge() {
    let upstream = echo();
    let proxy = Site::new().linked().start(&plain(&upstream)).await;
    relink(proxy.site(), "/bin/false");
    let refused = proxy.cutover(&["upgrade"]).await;
    assert_eq!(refused.status.code(), Some(5));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("the new process ended at once"), "{said}");
    assert_eq!(proxy.client().await.get("/still", "").await.status, 200);
    assert_eq!(proxy.status().await.process, proxy.process());
}
