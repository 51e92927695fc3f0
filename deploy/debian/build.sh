#!/bin/sh
# Builds a Debian package of a deliverd that is built already:
#
#	build.sh BINARY VERSION OUTDIR
#
# The same binary and version make the same bytes: all times are SOURCE_DATE_EPOCH, or
# that of the last commit. Manual pages, completions and the configuration come from the
# binary itself. Needs dpkg-deb and gzip.
set -eu
binary=$1 version=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
deploy=$(dirname "$here")
docs=$(dirname "$deploy")/docs
: "${SOURCE_DATE_EPOCH:=$(git -C "$here" log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022

# A version begins with a digit and has no hyphen: v1.2-3-gabc becomes 1.2+3+gabc.
version=$(printf %s "$version" | sed 's/^v//; s/-/+/g; s/[^A-Za-z0-9.+~]//g')
case $version in [0-9]*) ;; *) version=0~git$version ;; esac
arch=$(dpkg --print-architecture)

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
put() { install -D -m "$1" "$2" "$root/$3"; } # MODE FILE PATH

put 755 "$binary" usr/bin/deliverd
for unit in deliverd.service deliverd.socket deliverd-bounces.socket; do
	put 644 "$deploy/systemd/$unit" "lib/systemd/system/$unit"
done
put 644 "$here/sysusers.conf" usr/lib/sysusers.d/deliverd.conf
for file in alerts.yml dashboard.json; do
	put 644 "$deploy/monitoring/$file" "usr/share/deliverd/$file"
done
for doc in "$docs"/*.md; do
	put 644 "$doc" "usr/share/doc/deliverd/$(basename "$doc")"
done
put 644 "$(dirname "$deploy")/LICENSE" usr/share/doc/deliverd/copyright

mkdir -p "$root/usr/share/man/man1" "$root/usr/share/bash-completion/completions" \
	"$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d" "$root/etc/deliverd"
"$binary" man "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*
"$binary" completion bash >"$root/usr/share/bash-completion/completions/deliverd"
"$binary" completion zsh >"$root/usr/share/zsh/vendor-completions/_deliverd"
"$binary" completion fish >"$root/usr/share/fish/vendor_completions.d/deliverd.fish"
# No secret stands in it, and commands of everybody's find the daemon by it.
"$binary" config example >"$root/etc/deliverd/deliverd.toml"

mkdir "$root/DEBIAN"
echo /etc/deliverd/deliverd.toml >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
	install -m 755 "$here/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find usr etc lib -type f | sort | xargs md5sum) >"$root/DEBIAN/md5sums"
sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$(du -sk --apparent-size "$root" | cut -f1)/" "$here/control.in" >"$root/DEBIAN/control"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

mkdir -p "$out"
package=$out/deliverd_${version}_$arch.deb
dpkg-deb --build --root-owner-group -Zgzip "$root" "$package" >/dev/null
echo "$package"
