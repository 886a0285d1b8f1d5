# Debian packages and what surrounds them; included by the Makefile. Needs Debian, root, and some GB of cache.

ARCH  ?= amd64
SUITE ?= bookworm

BUILD_HOST := mmdebstrap binfmt-support qemu-user-static arch-test python3-pip apt-utils gnupg
PACKAGE_HOST := $(BUILD_HOST) python3-pytest python3-yaml systemd-container lintian
EVERYTHING_HOST := $(PACKAGE_HOST) qemu-system-arm zstd cpio kmod piuparts podman buildah crun

.PHONY: deb debs repo test-packages test-packages-amd64

deb: ## the Debian package in dist/; ARCH=amd64|arm64|armhf SUITE=bookworm|trixie
	@$(call installed,$(BUILD_HOST))
	cross/deb $(ARCH) $(SUITE)

debs: ## the Debian packages of all architectures
	@$(call installed,$(BUILD_HOST))
	cross/deb amd64
	cross/deb arm64
	cross/deb armhf bookworm
	@# a mirror's index of trixie on armhf may be days old, and then apt refuses it
	cross/deb armhf trixie || echo "left out: armhf for trixie"

repo: ## a signed apt repository in dist/repo, of the packages in dist/
	@$(call installed,$(BUILD_HOST))
	cross/repo

test-packages-amd64: ## build, check, install and run the amd64 package under a real systemd
	@$(call installed,$(PACKAGE_HOST))
	NETSPOT_PACKAGES=amd64 /usr/bin/python3 -m pytest -p no:cacheprovider -rs tests/packages

test-packages: ## the packages of all architectures: also virtual Raspberry Pi, piuparts, autopkgtest, container
	@$(call installed,$(EVERYTHING_HOST))
	NETSPOT_PACKAGES=all /usr/bin/python3 -m pytest -p no:cacheprovider -rs tests/packages

installed = dpkg -s $(1) >/dev/null 2>&1 || { $(SUDO) apt-get update -qq; $(APT) $(1); }
