#!/bin/sh
# Installs Debian's Postfix, and unpacks its Exim and OpenSMTPD, which can't be
# installed beside it, into the directory that is named. As root.
set -eu
to=$1
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postfix libidn12
for user in Debian-exim opensmtpd opensmtpq; do
	getent passwd "$user" >/dev/null || useradd --system --no-create-home --shell /usr/sbin/nologin "$user"
done
# OpenSMTPD has these compiled in.
mkdir -p /var/lib/opensmtpd/empty
install -d -m 711 /var/spool/smtpd
mkdir -p "$to"
cd "$to"
for package in exim4-daemon-light opensmtpd; do
	[ -d "$package" ] && continue
	apt-get download -qq "$package"
	dpkg -x "$package"_*.deb "$package"
	rm "$package"_*.deb
done
