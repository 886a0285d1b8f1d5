#!/bin/bash
# Pack a root file system and Debian's kernel for a virtual board:  board.sh LOWER ARCH OUT
#
# Writes OUT/vmlinuz, OUT/dtb (of the Raspberry Pi) and OUT/initrd: the whole system as initial RAM disk, so that no
# disk image is needed. LOWER is a list of folders for overlayfs. The kernel is kept in the cache.
set -euo pipefail
lower=$1 arch=$2 out=$3
here=$(cd "$(dirname "$0")/../.." && pwd)
cache=${NETSPOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netspot}
case $arch in
arm64) flavour=arm64 dtb=broadcom/bcm2837-rpi-3-b.dtb ;;
armhf) flavour=armmp dtb=bcm2836-rpi-2-b.dtb ;;
esac

kernel=$cache/kernel-$arch
if [ ! -e "$kernel" ]; then
    rm -rf "$kernel.part"
    mkdir -p "$kernel.part/deb"
    "$here/cross/enter" -b "$kernel.part/deb:/deb" "${lower##*:}" sh -euc '
        cd /deb && apt-get -qq update
        apt-get -qq -o APT::Sandbox::User=root download \
            "$(apt-cache depends linux-image-$1 | sed -n "s/ *Depends: \(linux-image-[0-9]\)/\1/p" | head -1)"' sh "$flavour"
    dpkg-deb --extract "$kernel.part"/deb/*.deb "$kernel.part"
    rm -r "$kernel.part/deb"
    mv "$kernel.part" "$kernel"
fi
mkdir -p "$out"
cp "$kernel"/boot/vmlinuz-* "$out/vmlinuz"
cp "$kernel"/usr/lib/linux-image-*/"$dtb" "$out/dtb"
version=$(basename "$kernel"/lib/modules/*)

unshare --mount --propagation private bash -euc '
    root=$(mktemp -d) over=$(mktemp -d)
    mount -t tmpfs tmpfs "$over"
    mkdir "$over/upper" "$over/work"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$over/upper,workdir=$over/work" "$root"
    modules=lib/modules/$3
    mkdir -p "$root/$modules"
    # veth is all that the tests need beside what is built in
    ( cd "$2" && cp --parents "$modules"/modules.{builtin,builtin.modinfo,order} "$modules"/kernel/drivers/net/veth.ko "$root" )
    depmod --basedir "$root" "$3"
    echo board >"$root/etc/hostname"
    ln -sf /sbin/init "$root/init"
    getty=$root/etc/systemd/system/serial-getty@.service.d
    mkdir -p "$getty"
    printf "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud %%I 115200 dumb\n" >"$getty/root.conf"
    # nothing that would fetch packages in the middle of a measurement
    for timer in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all; do ln -sf /dev/null "$root/etc/systemd/system/$timer.timer"; done
    cd "$root"
    find . -xdev \( -path ./usr/share/doc -o -path ./usr/share/man -o -path ./usr/share/locale -o -path ./var/cache/apt \
        -o -path ./var/lib/apt/lists -o -path ./usr/lib/\*/gconv -o -path ./usr/share/zoneinfo \) -prune -o -print |
        cpio --quiet --create --format newc | zstd --quiet -3 -T1 --force -o "$4/initrd"
    cd / && umount "$root" && umount "$over" && rmdir "$root" "$over"' bash "$lower" "$kernel" "$version" "$out"
