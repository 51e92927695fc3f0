#!/bin/sh
# Unpacks Debian's promtool into the directory that is named. The package itself would
# start a Prometheus.
set -eu
mkdir -p "$1"
cd "$1"
[ -x promtool ] && exit 0
apt-get download -qq prometheus
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 ./usr/bin/promtool
rm prometheus_*.deb
