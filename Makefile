# xvm: `make demo` shows it, `make test` proves it.
CARGO ?= cargo
MOUNT ?= ./xvm
PREFIX ?= /usr/local
# recorded loads for `make bench`: archives of a file a domain, see xvm-sim(1)
LOADS ?= ../shared/data/planetlab
DESTDIR ?=

# what the build needs, and what the tests need besides
BUILD_PACKAGES = gcc libc6-dev pkg-config libzmq3-dev libvirt-dev fuse3
# what imaged runs: builders, exports
IMAGE_PACKAGES = qemu-system-common qemu-utils e2fsprogs util-linux busybox-static cpio mmdebstrap debootstrap debian-archive-keyring \
	binutils patchelf
TEST_PACKAGES = libvirt-daemon-system libvirt-clients qemu-system-x86 nbdkit libnbd-bin strace dnsmasq-base iputils-ping \
	iproute2 procps mount mandoc jq rsync prometheus python3 python3-zmq \
	lvm2 thin-provisioning-tools nbd-client udev kmod xz-utils openssl openssh-client
DAEMONS = xvmfs agentd imaged guestd xvm-forwarder
TOOLS = xvm-sim

.PHONY: build demo test test-crates xen-test check bench evaluation install clean deps deps-demo deps-test man

build: deps
	$(CARGO) build --release --bins

demo: build deps-demo
	@exec examples/demo.sh target/release "$(MOUNT)"

# formats, lints, documentation, then every test. Tests wait more than they reckon: more of them run at once than there are cores, and of
# the programs that hold them two, the longest first, whose lines come when it has ended
test: export RUST_TEST_THREADS ?= 4
test: deps-test check
	$(CARGO) test --workspace --no-run --quiet
	@$(MAKE) --jobs=2 --keep-going --output-sync=target --no-print-directory test-crates $(CLUSTERS:%=test-of-%)

# programs of tests of whole clusters
LONG = configs_qemu help guests_qemu
CLUSTERS = $(LONG) $(filter-out xen $(LONG),$(basename $(notdir $(wildcard tests/tests/*.rs))))
# what make tells its children would be heard by the cargo that tests run
TEST = env --unset=MAKEFLAGS $(CARGO) test --workspace --no-fail-fast

test-crates:
	$(TEST) --exclude xvm-tests

test-of-%:
	$(TEST) --test $*

# two real Xen hosts in QEMU, no hardware needed: the same through the mounted tree; some eighteen minutes
xen-test: deps-test
	$(CARGO) test --workspace --test xen -- --nocapture

check: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --workspace --test xen -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

bench: deps-test
	$(CARGO) build --release --bins
	$(CARGO) run --release --package xvm-tests --bin bench
	$(CARGO) bench --package xvm-sim
	@if ls $(LOADS)/*.tar.gz > /dev/null 2>&1; then target/release/xvm-sim $(LOADS)/*.tar.gz; \
		else echo "SKIP xvm-sim: no recorded loads in $(LOADS) (LOADS=DIR names them)"; fi

# what balancing brings: sixteen tests on one of four simulated servers, without it and with it; some four minutes
evaluation: deps
	$(CARGO) run --release --package xvm-tests --bin evaluation

man:
	$(CARGO) xtask man

deps:
	@examples/packages.sh $(BUILD_PACKAGES)

deps-demo:
	@examples/packages.sh $(IMAGE_PACKAGES)

deps-test:
	@examples/packages.sh $(BUILD_PACKAGES) $(IMAGE_PACKAGES) $(TEST_PACKAGES)

install: build
	for b in $(DAEMONS); do install -D -m 755 target/release/$$b $(DESTDIR)$(PREFIX)/sbin/$$b; done
	for b in $(TOOLS); do install -D -m 755 target/release/$$b $(DESTDIR)$(PREFIX)/bin/$$b; done
	install -D -m 755 examples/certificates.sh $(DESTDIR)$(PREFIX)/share/xvm/certificates.sh
	for s in 1 4 5 7 8; do install -d $(DESTDIR)$(PREFIX)/share/man/man$$s && install -m 644 man/*.$$s $(DESTDIR)$(PREFIX)/share/man/man$$s/; done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	for b in $(DAEMONS) $(TOOLS); do install -m 644 completions/$$b.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$b; done
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for u in systemd/*.service; do sed 's|/usr/local/sbin|$(PREFIX)/sbin|' $$u > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$u); done

clean:
	$(CARGO) clean
