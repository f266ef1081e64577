# What scripts/run and scripts/test share. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Compiled code is kept outside of the checkout, so that a fresh one does not begin from nothing.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/stream-manager/target}"

say() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# What building and running needs.
run_packages=(
  gcc pkg-config libssl-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
  gstreamer1.0-libav gstreamer1.0-x glib-networking
)
# What the tests need beyond that.
test_packages=(libgstrtspserver-1.0-dev gstreamer1.0-rtsp gstreamer1.0-tools gstreamer1.0-nice gir1.2-gst-plugins-bad-1.0 python3-gi ffmpeg curl openssl mosquitto mosquitto-clients python3 python3-venv)

# Programs that come with the system or with somebody's own installation.
command -v npm >/dev/null || test_packages+=(nodejs npm)

# Browsers, where they are packages and not snaps; without one its tests say that they are skipped.
if grep -qs '^ID=debian' /etc/os-release; then
  test_packages+=(chromium firefox-esr)
fi

# Installs the packages that are missing; asks nobody and does nothing if all are there.
install_packages() {
  command -v dpkg-query >/dev/null || die "this script installs packages on Debian 12, 13 and Ubuntu 24.04; elsewhere install the like of: $*"
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "not root, and there is no sudo; as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Python programs that the server is tested with (the API's description, OTLP, ONNX Runtime's own answers, WebRTC), in a folder of their own. Without them their tests are skipped.
install_tools() {
  local tools="${XDG_CACHE_HOME:-$HOME/.cache}/stream-manager/tools"
  local wanted="schemathesis==4.32.5 openapi-python-client==0.29.1 opentelemetry-proto==1.45.2 aiortc==1.16.0 onnxruntime==1.32.0 numpy opencv-python-headless"
  if [ "$(cat "$tools/installed" 2>/dev/null)" = "$wanted" ]; then return 0; fi
  say "installing $wanted"
  rm -rf "$tools"
  # shellcheck disable=SC2086 # several words
  if python3 -m venv "$tools" && "$tools/bin/pip" install --quiet --disable-pip-version-check $wanted; then
    printf '%s' "$wanted" >"$tools/installed"
  else
    rm -rf "$tools"
    say "they do not install; the tests that need them say that they are skipped"
  fi
}

# Browser players that HLS and DASH are tested with, in a folder of their own. Without them their tests are skipped.
install_players() {
  local players="${XDG_CACHE_HOME:-$HOME/.cache}/stream-manager/players"
  local wanted="hls.js@1.7.4 shaka-player@5.2.12 dashjs@5.2.1 playwright-core@1.65.1 puppeteer-core@25.16.0 typescript@7.0.2 axe-core@4.14.1"
  if [ "$(cat "$players/installed" 2>/dev/null)" = "$wanted" ]; then return 0; fi
  say "installing $wanted"
  rm -rf "$players"
  mkdir -p "$players"
  # shellcheck disable=SC2086 # several words
  if command -v npm >/dev/null && npm install --prefix "$players" --no-audit --no-fund --ignore-scripts --silent $wanted; then
    printf '%s' "$wanted" >"$players/installed"
  else
    rm -rf "$players"
    say "they do not install; the tests that need them say that they are skipped"
  fi
}

# The library that models are computed by. Without it inference says that it is missing.
install_onnxruntime() {
  "$root/scripts/install-onnxruntime" || say "ONNX Runtime does not install; what needs it says so"
}

# Room for what is built: the tests' programs alone are 8 GB. What earlier checkouts in other folders have left of ours goes first, since
# their programs have other names and are never used again; the dependencies stay. A full disk makes tests fail that have nothing to do with it.
make_room() {
  local least_gb=16 free_gb
  mkdir -p "$CARGO_TARGET_DIR"
  free_gb=$(df --output=avail -BG "$CARGO_TARGET_DIR" | tail -n1 | tr -dc 0-9)
  [ "$free_gb" -lt "$least_gb" ] || return 0
  say "making room: $free_gb GB are free, $least_gb are wanted"
  rm -rf "$CARGO_TARGET_DIR"/debug/incremental
  # Older versions of cargo know no --workspace here: all goes then.
  (cd "$root" && { cargo clean --locked --workspace --quiet 2>/dev/null || cargo clean --quiet; })
  free_gb=$(df --output=avail -BG "$CARGO_TARGET_DIR" | tail -n1 | tr -dc 0-9)
  [ "$free_gb" -ge "$least_gb" ] || say "$free_gb GB are free: that may be too little (cargo clean throws away all that was built)"
}

# Rust is checked, not installed: how to get it is everybody's own choice.
check_rust() {
  local want=1.92 have
  command -v cargo >/dev/null || die "Rust is missing. Install it from https://rustup.rs (curl https://sh.rustup.rs -sSf | sh), then run this again."
  have=$(rustc --version | cut -d' ' -f2)
  if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n1)" != "$want" ]; then
    die "Rust $have is too old; $want or newer is needed: rustup update stable"
  fi
}
