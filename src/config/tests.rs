//! What the tests of the configuration share; each subject has a file.

mod examples;
mod files;
mod lives;
mod mistakes;
mod plans;
mod schema;
mod signals;
mod values;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::model::*;
use super::*;
use crate::policy::arm::Arm;
use crate::policy::criteria::{Criteria, Criterion, Overdispersion};
use crate::policy::share::Share;

const QUICKSTART: &str = include_str!("../../config/quickstart.yaml");
const PRODUCTION: &str = include_str!("../../config/production.yaml");

/// Values that must never be seen in a message.
const SECRETS: [&str; 3] = [
    "the-reader's-token",
    "the-operator's-token",
    "a pin secret of more than thirty-two bytes",
];

fn environment(name: &str) -> Option<String> {
    match name {
        "READ_TOKEN" => Some(SECRETS[0].to_owned()),
        "METRICS_TOKEN" => Some(SECRETS[0].to_owned()),
        "PIN_SECRET" => Some(SECRETS[2].to_owned()),
        "NUMBER" => Some("4".to_owned()),
        "SECRET" => Some(SECRETS[0].to_owned()),
        _ => None,
    }
}

/// A directory with every file that production.yaml names.
fn production_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, contents: &str| {
        let path = directory.path().join(name);
        let parent = path.parent().expect("within the directory");
        std::fs::create_dir_all(parent).expect("writable");
        std::fs::write(path, contents).expect("writable");
    };
    let names = vec!["shop.example.com".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
    write("tls/edge.pem", &certified.cert.pem());
    write("tls/edge.key", &certified.signing_key.serialize_pem());
    for also in [
        "tls/partners.pem",
        "tls/clients-ca.pem",
        "tls/internal-ca.pem",
    ] {
        write(also, &certified.cert.pem());
    }
    write("tls/partners.key", &certified.signing_key.serialize_pem());
    write("tls/jwt-public.pem", RSA_PUBLIC_KEY);
    write("secrets/operate-token", &format!("{}\n", SECRETS[1]));
    write(
        "pins.txt",
        "# testers\nbob@example.com new\n\nold customer legacy\n",
    );
    write("denied.txt", "# scanners\n198.51.100.0/24\n");
    write("allowed.txt", "0.0.0.0/0\n::/0\n");
    write("production.yaml", PRODUCTION);
    directory
}

const RSA_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsWM7g1DU7xKzw4gxbVSk
c63zadi47Zq2f8aOEjWjpE45Mw/2FsdMaynoYXTD6R/J1tGgnWxiPBzzC4GrnJux
qGK3IBBbJOLuXlCf61vlNUilxz8GDKbJeE+jUlREHrP0/1vGP59TyAfbokzwq8V0
uyUPwS63bB2gnYcpXyki69v0O1zEhUFEDEy3YELcJZvAk5q360rkd7r7yYZVSb3l
qtbw/wDj11jmDW8Xe+fuMI7R60WF5pttpxfvj7SVLVCdPvuXfHp/orOthJKPeCIQ
qqmL8VVITmQD1D4Dz6A+Cux3EDIjWCxS9qV0wzj09o+F9zZ4dtNy8lhTcULEwEei
4QIDAQAB
-----END PUBLIC KEY-----
";

fn load_minimal(more: &str) -> Result<Config, Problems> {
    let text = format!("{QUICKSTART}{more}");
    load_text(&text, Path::new("."), &environment)
}

/// Problems of a split's keys added to the quickstart's split.
fn split_problems(keys: &str) -> Vec<Problem> {
    problems(&QUICKSTART.replace("    share: 10%\n", &format!("    {keys}\n")))
}

fn problems(text: &str) -> Vec<Problem> {
    let result = load_text(text, Path::new("/nonexistent"), &environment);
    result.err().map(|all| all.problems).unwrap_or_default()
}
