#!/usr/bin/env bash
# Installs what the project needs and is missing, and says what and why. Debian 12 or later, Ubuntu 24.04
# or later; elsewhere it names what to install by hand.
#
#   .ci/setup.sh build    compiler, Rust, OpenCV, Node.js
#   .ci/setup.sh test     the same, and what the tests talk to: nats-server, Chromium, GDAL, with go also grpcurl
#   .ci/setup.sh bench    the same, and what is measured against: djpeg
set -euo pipefail
cd "$(dirname "$0")/.."

TIER="${1:?usage: .ci/setup.sh build|test|bench}"
RUST_MINIMUM=1.95
NODE_MINIMUM=18
# Advisories in earlier servers are reachable from the network.
NATS_MINIMUM=2.12.7
NATS_INSTALLED=2.15.2
GRPCURL_INSTALLED=1.9.3
TOOLS="$PWD/target/tools/bin"
export PATH="$TOOLS:$HOME/.cargo/bin:/usr/local/go/bin:$PATH"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# at_least WANTED FOUND
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo; then sudo "$@"
  else die "'$*' needs root: run it as root, then start again"
  fi
}

is_ubuntu() { grep -q '^ID=ubuntu' /etc/os-release; }

MISSING=()
# need PACKAGE WHY
need() {
  dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed' && return
  say "will install $1: $2"
  MISSING+=("$1")
}

install_packages() {
  have apt-get || die "this is not Debian or Ubuntu: install a C++ compiler, pkg-config, OpenCV 4 with headers, clang with libclang, curl, Node.js $NODE_MINIMUM or later with npm, and for the tests Chromium, GDAL and nats-server $NATS_MINIMUM or later; then start again"
  need build-essential "C and C++ compiler for native parts"
  need pkg-config "finds OpenCV"
  need libopencv-dev "reads cameras and video"
  need clang "generates the OpenCV bindings"
  need libclang-dev "generates the OpenCV bindings"
  need curl "downloads the Rust installer, and the examples in the README use it"
  need ca-certificates "verifies downloads"
  if ! have node || ! at_least "$NODE_MINIMUM" "$(node --version | tr -d v)"; then
    need nodejs "builds the console"
  fi
  have npm || need npm "builds the console"
  # Ubuntu has no package of Chromium, only a door to a snap.
  if [ "$TIER" = bench ]; then
    need libjpeg-turbo-progs "decodes pictures, which is what painting them is measured against"
  fi
  if [ "$TIER" != build ]; then
    need gdal-bin "reads the map as other programs do"
  fi
  if [ "$TIER" != build ] && ! is_ubuntu; then
    have chromium || have google-chrome || need chromium "opens the console in the browser test"
  fi
  if [ "${#MISSING[@]}" -gt 0 ]; then
    apt_install "${MISSING[@]}"
  fi
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# Where no package brings a browser, the one that the test's own driver knows to install.
install_browser() {
  have chromium || have google-chrome || driver_has_browser || {
    say "will install Chromium through playwright-core: it opens the console in the browser test"
    npm --prefix tests/browser ci --no-audit --no-fund
    as_root env "PATH=$PATH" tests/browser/node_modules/.bin/playwright-core install-deps chromium
    tests/browser/node_modules/.bin/playwright-core install chromium
  }
}

driver_has_browser() {
  (cd tests/browser && node -e '
    import("playwright-core").then(({ chromium }) => require("fs").accessSync(chromium.executablePath()))
      .catch(() => process.exit(1))') 2>/dev/null
}

install_rust() {
  if ! have cargo; then
    say "will install Rust through rustup: the product is written in it"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --component clippy --component rustfmt
  fi
  local found
  found="$(cargo --version | cut -d' ' -f2)"
  if ! at_least "$RUST_MINIMUM" "$found"; then
    have rustup || die "the Rust of this system, $found, is too old, $RUST_MINIMUM or later is needed: remove it, and this installs Rust through rustup"
    die "Rust $found is too old, $RUST_MINIMUM or later is needed: run 'rustup update stable'"
  fi
  if [ "$TIER" != build ]; then
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
  fi
}

nats_found() {
  have nats-server || return 1
  at_least "$NATS_MINIMUM" "$(nats-server --version | sed 's/.*v//')"
}

# From the mirror that this Debian uses; the suite is removed again, so that nothing else comes from it.
unpack_nats_of_unstable() {
  local list=/etc/apt/sources.list.d/sovereign-nats.list pin=/etc/apt/preferences.d/sovereign-nats mirror folder
  mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)"
  printf 'deb %s sid main\n' "$mirror" | as_root tee "$list" >/dev/null
  printf 'Package: *\nPin: release n=sid\nPin-Priority: 10\n' | as_root tee "$pin" >/dev/null
  folder="$(mktemp -d)"
  trap "as_root rm -f '$list' '$pin'; rm -rf '$folder'; as_root apt-get update -qq" EXIT
  chmod 755 "$folder"
  as_root apt-get update -qq
  (cd "$folder" && apt-get download -qq nats-server/sid && dpkg -x nats-server_*.deb .)
  install -m 755 "$folder/usr/sbin/nats-server" "$TOOLS/nats-server"
}

go_install() { CGO_ENABLED=0 GOBIN="$TOOLS" go install "$1"; }

install_nats() {
  nats_found && return
  mkdir -p "$TOOLS"
  if ! have go && is_ubuntu; then
    say "will install golang-go: it builds nats-server, which the tests of the split system run against"
    apt_install golang-go
  fi
  if have go; then
    say "will build nats-server $NATS_INSTALLED with go: the tests of the split system run against it"
    go_install "github.com/nats-io/nats-server/v2@v$NATS_INSTALLED" || say "this go cannot build it"
  fi
  if ! nats_found && ! is_ubuntu; then
    say "will unpack nats-server from Debian's unstable suite into $TOOLS: the tests of the split system run against it"
    unpack_nats_of_unstable
  fi
  nats_found || die "nats-server $NATS_MINIMUM or later could not be installed: put one on the PATH and start again"
}

# Optional: only the gRPC examples of the documentation need it, and Debian has no package of it.
install_grpcurl() {
  have grpcurl && return
  if have go; then
    say "will build grpcurl $GRPCURL_INSTALLED with go: the gRPC examples of the documentation use it"
    go_install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$GRPCURL_INSTALLED" && return
  fi
  say "skipping grpcurl, which needs a newer go: the gRPC examples of the documentation will not be executed"
}

case "$TIER" in
  build) install_packages; install_rust ;;
  test | bench) install_packages; install_rust; install_browser; install_nats; install_grpcurl ;;
  *) die "unknown tier '$TIER': build, test or bench" ;;
esac
say "everything for '$TIER' is here"
