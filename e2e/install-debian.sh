#!/bin/sh
# Installs from Debian what the tests need and this machine lacks, without starting any packaged service.
# Root installs; anybody else is told the one command to run, and the script fails: nothing is skipped silently.
# With the argument "bench" it installs what make bench compares with beside that: what cannot be had is named, and left out.
set -eu

missing=""
need() { # need COMMAND PACKAGE...: the packages, unless the command is there
	command -v "$1" >/dev/null 2>&1 && return
	shift
	missing="$missing $*"
}
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" # where Debian puts haproxy and rabbitmqctl
what=${1:-test}
if [ "$what" = bench ]; then
	need nginx nginx
	[ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || missing="$missing libnginx-mod-nchan"
	need pushpin pushpin
	need redis-server redis-server
else
	need rabbitmq-server rabbitmq-server
	need haproxy haproxy
	need chromium chromium
	need gcc gcc libc6-dev
	need git git
	need node nodejs
	need npm npm
	/usr/bin/python3 -c 'import pika' >/dev/null 2>&1 || missing="$missing python3-pika"
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	printf 'make %s needs these Debian packages, which are missing here:%s\nInstall them with:\n  sudo apt-get install --no-install-recommends%s\n' "$what" "$missing" "$missing" >&2
	[ "$what" = bench ] && exit 0 # what is not there is left out
	exit 1
fi

echo "installing from Debian:$missing" >&2
# policy-rc.d answering 101 keeps the packages from starting their services (invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
if [ "$what" = bench ]; then
	for package in $missing; do
		apt-get install -q -y --no-install-recommends "$package" || echo "Debian's package $package cannot be installed: what needs it is left out" >&2
	done
	exit 0
fi
# shellcheck disable=SC2086 # the list is meant to be split
apt-get install -q -y --no-install-recommends $missing
