#!/usr/bin/env bash
# Installs what the tests need and is missing, then runs every check there is.
#
# Needs a Debian (or Ubuntu) with a Rust toolchain; rights to install packages (root, or sudo) only
# where a package is missing. Arguments go to nextest: `./test.sh rollout` runs the tests whose
# names contain "rollout", after the other checks.
set -euo pipefail
cd "$(dirname "$0")"

# The arms of one test are servers that are not ours, and a real Prometheus reads our metrics.
packages=()
need() { # PROGRAM PACKAGE...
  local program=$1
  shift
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || packages+=("$@")
}
need cc gcc libc6-dev
need nginx nginx-light
need python3 python3
need prometheus prometheus
need promtool prometheus
# Clients that are not ours: what people put in front of an API.
need curl curl
need wrk wrk
need h2load nghttp2-client
need node nodejs
need_library() { # LIBRARY PACKAGE
  compgen -G "/usr/lib/*/$1" >/dev/null || packages+=("$2")
}
# Names that move, without touching the machine's own.
need_library libnss_wrapper.so libnss-wrapper
# What holds sockets for a service, and reads its units.
need systemd-socket-activate systemd
need systemd-analyze systemd
need_module() { # MODULE PACKAGE
  /usr/bin/python3 -c "import $1" 2>/dev/null || packages+=("$2")
}
need_module websockets python3-websockets
need_module grpc python3-grpcio

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a server when it is installed. The tests start their own, on ports of their own, so
# nothing is started now and nothing that was installed here starts with the machine.
install_packages() {
  if ! command -v apt-get >/dev/null; then
    echo "test.sh: please install what provides: ${packages[*]}" >&2
    exit 1
  fi
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'as_root rm -f '"$policy" EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq)
  as_root "${apt[@]}" update
  as_root "${apt[@]}" install --no-install-recommends "${packages[@]}" >/dev/null
  if [ -d /run/systemd/system ]; then
    local package
    for package in "${packages[@]}"; do
      case $package in
        nginx-light) as_root systemctl disable --quiet nginx ;;
        prometheus) as_root systemctl disable --quiet prometheus ;;
      esac
    done
  fi
}
if [ "${#packages[@]}" -gt 0 ]; then
  install_packages
fi
cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest

cargo fmt --all --check
cargo clippy --locked --all-targets -- -D warnings
# Building it takes as long as everything else here, so it is used where it is, and not installed:
# cargo install --locked cargo-deny
if cargo deny --version >/dev/null 2>&1; then
  cargo deny --locked check --hide-inclusion-graph bans licenses sources
else
  echo "test.sh: without cargo-deny, licences and duplicate crates are not checked"
fi
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
cargo test --locked --doc
cargo nextest run --locked "$@"
