#!/bin/sh
# Installs the Debian programs that the peer tests talk to. Asks nothing, starts no service:
# the tests start what they need on ports of their own.
set -eu

PACKAGES='mailfront cvm ucspi-tcp postfix swaks libnet-ssleay-perl curl msmtp openssl strace spamd clamav-daemon rbldnsd getmail6 mpop fetchmail dovecot-submissiond dovecot-imapd dovecot-lmtpd ipsvd openbsd-inetd daemontools shellcheck mandoc systemd'

if ! command -v apt-get >/dev/null; then
    echo 'make peers: this system has no apt-get; install these by hand:' "$PACKAGES" >&2
    exit 1
fi

missing=
for package in $PACKAGES; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
# nullmailer conflicts with postfix: its programs are only unpacked.
unpacked=/usr/local/lib/mailfront-peers
unpack=nullmailer
[ ! -x $unpacked/usr/sbin/nullmailer-queue ] || unpack=
[ -n "$missing$unpack" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "make peers: must be root to install:$missing $unpack" >&2
    exit 1
fi

# invoke-rc.d asks this file whether a service may start; 101 says no. What was there comes back.
policy=/usr/sbin/policy-rc.d
saved=
if [ -e "$policy" ] || [ -L "$policy" ]; then
    saved=$(mktemp -d)
    mv "$policy" "$saved/policy-rc.d"
fi
restore() {
    rm -f "$policy"
    if [ -n "$saved" ]; then
        mv "$saved/policy-rc.d" "$policy"
        rmdir "$saved"
    fi
}
trap restore EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
if command -v debconf-set-selections >/dev/null; then
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
fi
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing </dev/null
if [ -n "$unpack" ]; then
    place=$(mktemp -d)
    chmod 755 "$place"
    (cd "$place" && apt-get download -qq "$unpack" && dpkg -x "$unpack"_*.deb $unpacked)
    rm -r "$place"
    chmod u-s $unpacked/usr/sbin/nullmailer-queue # it runs as who tests it
fi
