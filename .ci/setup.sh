# Sourced by ./run, ./test and .ci/run: makes what they need and do not find. Fast where nothing is missing.

# The daemon itself; Python's venv; then what the tests and the benchmark start.
RUN_PACKAGES="gnupg gpgv python3-venv"
TEST_PACKAGES="$RUN_PACKAGES adduser alien apache2-bin apt-utils aptly caddy checkinstall cmake curl dbus debsigs dpkg-dev
  dput e2fsprogs equivs fakeroot fish jq libseccomp2 lintian nginx-light openssh-client openssh-server openssl python3-dput
  python3-paramiko reprepro rsync sqv systemd util-linux xz-utils zsh zstd"
BENCH_PACKAGES="$RUN_PACKAGES aptly reprepro"

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }

die() { printf '%s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "these Debian packages are missing: $missing. Install them as root: apt-get install $missing"
  fi
}

# debian_packages NAME…: install those that are missing.
debian_packages() {
  command -v apt-get >/dev/null || die "this is not Debian or one of its kin: there is no apt-get"
  missing=
  for package; do
    case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) in
      installed) ;;
      *) missing="$missing $package" ;;
    esac
  done
  [ -n "$missing" ] || return 0
  say "installing Debian packages:$missing"
  as_root apt-get update -qq
  # Debian starts what it installs; the tests start their own.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >&2
}

# unpacked_package NAME…: download and unpack in .cache those that cannot be installed beside the others.
unpacked_package() {
  for package; do
    [ ! -e ".cache/$package" ] || continue
    say "unpacking the Debian package $package"
    rm -rf .cache/new
    mkdir -p .cache/new/root
    (cd .cache/new && apt-get download -qq -o APT::Sandbox::User=root "$package" && dpkg-deb -x "$package"_*.deb root)
    mv .cache/new/root ".cache/$package"
    rm -r .cache/new
  done
}

# node_package NAME RANGE: install that package of npm in .cache/NAME. Debian's npm brings some 300 packages along, so
# that it is installed only where there is none.
node_package() {
  [ ! -e ".cache/$1" ] || return 0
  command -v npm >/dev/null || debian_packages npm
  say "installing the npm package $1"
  rm -rf .cache/new
  mkdir -p .cache/new
  npm install --prefix .cache/new --silent --no-audit --no-fund --ignore-scripts "$1@$2" >&2
  mv .cache/new ".cache/$1"
}

# The interpreter that users have: Debian's own. Accounts other than root can run it, as the tests need.
PYTHON=${PYTHON:-/usr/bin/python3}

# virtual_environment EXTRAS: .venv with this project and its extras, rebuilt when pyproject.toml or Python changes.
virtual_environment() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or later is needed"
  wanted="$PYTHON $("$PYTHON" --version) $1 $(sha256sum <pyproject.toml)"
  [ "$(cat .venv/made-for 2>/dev/null)" != "$wanted" ] || return 0
  say "making the virtual environment .venv"
  "$PYTHON" -m venv --clear .venv
  .venv/bin/pip install --quiet --disable-pip-version-check --editable ".[$1]"
  printf '%s\n' "$wanted" >.venv/made-for
}

# repository LABEL: the address that apt has for Debian's packages, or for its security updates.
repository() {
  apt-get indextargets --format '$(ORIGIN):$(LABEL):$(COMPONENT) $(REPO_URI)' |
    awk -v wanted="Debian:$1:main" '$1 == wanted && !found { found = $2 } END { print found }'
}

# made_chroot RELEASE PACKAGES: the folder of a chroot of that Debian, kept in .cache. Root only.
made_chroot() {
  local release=$1 packages=$2 chroot=$PWD/.cache/$1 mirror security
  debian_packages debootstrap >&2
  if [ ! -e "$chroot/made" ]; then
    mirror=$(repository Debian) security=$(repository Debian-Security)
    [ -n "$mirror" ] || die "apt's sources have no mirror of Debian: apt-get indextargets lists none whose Origin is Debian"
    say "making a chroot of $release"
    rm -rf --one-file-system "$chroot"
    mkdir -p "$chroot"
    debootstrap --variant=minbase --include="$packages" "$release" "$chroot" "$mirror" >"$chroot.log" 2>&1 ||
      { tail -n 20 "$chroot.log" >&2; die "debootstrap failed; all that it said is in $chroot.log"; }
    {
      echo "deb $mirror $release main"
      echo "deb-src $mirror $release main"
      echo "deb $mirror $release-updates main"
      [ -z "$security" ] || echo "deb $security $release-security main"
    } >"$chroot/etc/apt/sources.list"
    touch "$chroot/made"
  fi
  echo "$chroot"
}
