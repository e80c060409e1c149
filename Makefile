# `make help` lists the targets. Programs are built in bin/; .cache/ holds files that only save time.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO      ?= go
BIN     := $(CURDIR)/bin
TAGS    := containers_image_openpgp,nri_no_wasm
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
STRIP   := -s -w
PROCS   ?= 4
# PREFIX and DESTDIR have the meaning of the GNU coding standards. DEFAULT_CONFIG prints the default configuration file: a
# criserver for another architecture cannot do that.
PREFIX  ?= /usr
DESTDIR ?=
DEFAULT_CONFIG ?= $(BIN)/criserver config --default
# SHARE contains the generated files of PREFIX/share. Debian has another directory for completions of zsh.
SHARE   ?= $(BIN)/share
ZSH_COMPLETIONS ?= zsh/site-functions
# The architectures of the Debian packages.
DEB_ARCHS ?= amd64 arm64
# The cache of the linter is below .cache, where `make clean` removes it.
LINT    := GOLANGCI_LINT_CACHE=$(CURDIR)/.cache/golangci-lint $(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml
# The architectures that the daemon must compile for. No 32-bit architecture is supported.
ARCHS   := amd64,arm64,loong64,ppc64le,riscv64,s390x

CNI := $(addprefix $(BIN)/cni/,bandwidth bridge firewall host-local loopback macvlan portmap ptp static tuning)
CONTROL_PLANE := $(addprefix $(BIN)/kubernetes/,kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl)
CLUSTER_TOOLS := $(BIN)/kubelet $(CONTROL_PLANE) $(BIN)/kubernetes/etcd $(BIN)/kubernetes/coredns
# The nodes of "make cluster": their number, and routes or vxlan between them. CLUSTER names one of several clusters.
CLUSTER ?= demo
NODES   ?= 2
NETWORK ?= routes
TOOLS := $(BIN)/runc $(BIN)/criu $(BIN)/checkpointctl $(BIN)/crictl $(BIN)/ginkgo $(CNI) $(BIN)/testimages

# Each suite is a separate Go module, so that the dependencies of tests are not dependencies of the daemon.
SUBMODULES := tools/protogen test/harness test/harness/criclient test/images test/docs test/monitoring test/critest test/system test/kubelet test/cluster test/systemd test/vm

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  VARIANT=name and FOCUS=regexp select specs of critest, PROCS=n sets how many specs run at a time, DEMO_IMAGE=reference sets the image of the demo, NODES=n NETWORK=routes|vxlan HANDLER=runc|crun CLUSTER=name configure a cluster. RUNTIME=containerd runs TestScale of a cluster with containerd."

.PHONY: build
build: $(SHARE) ## Build bin/criserver, bin/conmon, man pages and completions
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(STRIP) -X main.version=$(VERSION)' \
		-o $(BIN)/ ./cmd/criserver ./cmd/conmon

# The man pages and completions do not depend on the architecture.
$(SHARE): $(wildcard internal/cli/*.go internal/cli/*/*.go config/*.go hack/clidocs/*.go)
	rm -rf $@
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || true)} GOOS= GOARCH= CGO_ENABLED=0 $(GO) run -tags $(TAGS) ./hack/clidocs -share $@ -zsh $(ZSH_COMPLETIONS)
	@touch $@

# The monitor is in a separate directory, because /usr/bin/conmon belongs to the package conmon of Debian. The
# directories of PREFIX for systemd and sysctl are on the search path for /usr and /usr/local. A configuration file that
# exists is kept.
.PHONY: install
install: DOC = $(DESTDIR)$(PREFIX)/share/doc/criserver
install: ## Install the programs that "build" has built, the unit and the configuration below DESTDIR and PREFIX (/usr)
	umask 022; \
	install -D -m 755 $(BIN)/criserver $(DESTDIR)$(PREFIX)/bin/criserver; \
	install -D -m 755 $(BIN)/conmon $(DESTDIR)$(PREFIX)/libexec/criserver/conmon; \
	install -d -m 755 $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)/etc/criserver/criserver.toml.d; \
	sed 's|^ExecStart=/usr/|ExecStart=$(PREFIX)/|' packaging/criserver.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/criserver.service; \
	install -D -m 644 packaging/60-criserver.conf $(DESTDIR)$(PREFIX)/lib/sysctl.d/60-criserver.conf; \
	[ -e $(DESTDIR)/etc/criserver/criserver.toml ] || $(DEFAULT_CONFIG) >$(DESTDIR)/etc/criserver/criserver.toml; \
	(cd $(SHARE) && find man -type f) | while read -r page; do \
		install -d -m 755 $(DESTDIR)$(PREFIX)/share/$$(dirname $$page); \
		gzip -9nc $(SHARE)/$$page >$(DESTDIR)$(PREFIX)/share/$$page.gz; \
	done; \
	(cd $(SHARE) && find . -path ./man -prune -o -type f -print) | while read -r file; do \
		install -D -m 644 $(SHARE)/$$file $(DESTDIR)$(PREFIX)/share/$$file; \
	done; \
	install -D -m 644 packaging/copyright $(DOC)/copyright; \
	[ ! -e $(BIN)/licenses ] || install -m 644 $(BIN)/licenses $(DOC)/licenses; \
	gzip -9nc CHANGELOG.md >$(DOC)/changelog.gz; \
	install -d -m 755 $(DOC)/examples; \
	install -m 644 $(addprefix docs/examples/,10-criserver.conflist cni.template crictl.yaml criserver.cil kubelet.yaml runtimes.toml) $(DOC)/examples/

.PHONY: deb
deb: build $(BIN)/nfpm ## Build the Debian packages for amd64 and arm64 in bin/deb
	@rm -rf $(BIN)/deb .cache/deb
	@for arch in $(DEB_ARCHS); do \
		dir=$(CURDIR)/.cache/deb/$$arch; \
		mkdir -p $$dir/bin; \
		GOARCH=$$arch packaging/licenses.sh $(TAGS) >$$dir/bin/licenses; \
		GOARCH=$$arch $(MAKE) --no-print-directory -s build install BIN=$$dir/bin DESTDIR=$$dir/root PREFIX=/usr \
			VERSION=$(VERSION) SHARE=$(CURDIR)/.cache/deb/share ZSH_COMPLETIONS=zsh/vendor-completions DEFAULT_CONFIG='$(BIN)/criserver config --default'; \
		packaging/deb.sh $(BIN)/nfpm $$arch '$(VERSION)' $$dir/root $(BIN)/deb; \
	done

.PHONY: tools
tools: deps $(TOOLS) ## Build the programs that tests and the demo need: runc, CRIU, CNI plugins, crictl, testimages

.PHONY: deps
deps: ## Install missing Debian packages (as root)
	@hack/deps.sh

$(BIN)/runc: tools/runc/go.mod tools/runc/go.sum | deps
	cd tools/runc && $(GO) build -trimpath -tags seccomp,netgo,osusergo,urfave_cli_no_docs \
		-ldflags '$(STRIP)' -o $@ github.com/opencontainers/runc
	@touch $@

# The packages that only CRIU needs are installed only when CRIU is built.
$(BIN)/criu: tools/criu/build.sh
	@tools/criu/build.sh $@

$(BIN)/checkpointctl: tools/checkpointctl/go.mod tools/checkpointctl/go.sum
	cd tools/checkpointctl && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(STRIP)' -o $@ github.com/checkpoint-restore/checkpointctl
	@touch $@

$(CNI) &: tools/cni/go.mod tools/cni/go.sum
	cd tools/cni && CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/cni/ \
		-ldflags '$(STRIP) -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v1.10.0' tool
	@touch $(CNI)

$(BIN)/crictl: tools/crictl/go.mod tools/crictl/go.sum
	cd tools/crictl && CGO_ENABLED=0 $(GO) build -trimpath -o $@ \
		-ldflags '$(STRIP) -X sigs.k8s.io/cri-tools/pkg/version.Version=v1.36.0' sigs.k8s.io/cri-tools/cmd/crictl
	@touch $@

$(BIN)/ginkgo: test/critest/go.mod test/critest/go.sum
	cd test/critest && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(STRIP)' -o $@ github.com/onsi/ginkgo/v2/ginkgo
	@touch $@

# The kubelet takes minutes to build, so it is not part of tools: only its suite needs it, and "test" builds it while the
# system suite runs, which mostly waits. The same holds for the other programs of a cluster.
KUBERNETES_BUILD = cd tools/kubernetes && CGO_ENABLED=0 nice $(GO) build -trimpath \
	-ldflags '$(STRIP) -X k8s.io/component-base/version.gitVersion=v1.36.3'

$(BIN)/kubelet: tools/kubernetes/go.mod tools/kubernetes/go.sum
	$(KUBERNETES_BUILD) -o $@ k8s.io/kubernetes/cmd/kubelet
	@touch $@

$(CONTROL_PLANE) &: tools/kubernetes/go.mod tools/kubernetes/go.sum
	@mkdir -p $(BIN)/kubernetes
	$(KUBERNETES_BUILD) -o $(BIN)/kubernetes/ $(addprefix k8s.io/kubernetes/cmd/,$(notdir $(CONTROL_PLANE)))
	@touch $(CONTROL_PLANE)

$(BIN)/kubernetes/etcd: tools/kubernetes/go.mod tools/kubernetes/go.sum
	$(KUBERNETES_BUILD) -o $@ go.etcd.io/etcd/server/v3
	@touch $@

$(BIN)/kubernetes/coredns: $(wildcard tools/coredns/*)
	cd tools/coredns && CGO_ENABLED=0 nice $(GO) build -trimpath -ldflags '$(STRIP)' -o $@ .
	@touch $@

$(BIN)/cluster: $(wildcard test/cluster/*.go test/cluster/*/*.go test/cluster/*/*/*.go test/harness/*.go test/images/*.go) test/cluster/go.mod
	cd test/cluster && CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/cluster
	@touch $@

$(BIN)/nfpm: tools/nfpm/go.mod tools/nfpm/go.sum
	cd tools/nfpm && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(STRIP)' -o $@ github.com/goreleaser/nfpm/v2/cmd/nfpm
	@touch $@

# Only the tests of the alerts need promtool, so it is not part of tools. The tag leaves out the clients of service
# discovery.
$(BIN)/promtool: tools/promtool/go.mod tools/promtool/go.sum
	cd tools/promtool && CGO_ENABLED=0 nice $(GO) build -trimpath -tags remove_all_sd -ldflags '$(STRIP)' -o $@ github.com/prometheus/prometheus/cmd/promtool
	@touch $@

# Only a comparison in a cluster needs containerd.
$(BIN)/containerd/containerd: tools/containerd/go.mod tools/containerd/go.sum
	@mkdir -p $(@D)
	cd tools/containerd && CGO_ENABLED=0 nice $(GO) build -trimpath -tags no_btrfs,no_devmapper,no_zfs \
		-ldflags '$(STRIP) -X github.com/containerd/containerd/v2/version.Version=v2.4.2' -o $(@D)/ tool
	@touch $@

# The linter takes minutes to build.
$(BIN)/golangci-lint: tools/golangci-lint/go.mod tools/golangci-lint/go.sum
	cd tools/golangci-lint && CGO_ENABLED=0 nice $(GO) build -trimpath -ldflags '$(STRIP)' -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

$(BIN)/testimages: $(wildcard test/images/*.go test/images/*/*.go test/images/*/*/*.go) test/images/go.mod
	cd test/images && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(STRIP)' -o $@ ./cmd/testimages
	@touch $@

.PHONY: images
images: tools ## Build the test images in .cache/images
	$(BIN)/testimages build -dir .cache/images

.PHONY: unit
unit: ## Run the tests that need no root, with the race detector
	$(GO) test -race -short -tags $(TAGS) ./...
	cd test/docs && $(GO) test -count=1 -short . # the cache does not notice changes of the pages

.PHONY: root-test
root-test: deps tools build ## Run all tests of the daemon's module, with the race detector (as root)
	@[ "$$(id -u)" = 0 ] || { echo "root-test needs root: without it tests are skipped" >&2; exit 1; }
	$(GO) test -race -vet=off -p 4 -timeout 15m -tags $(TAGS) ./...

.PHONY: system
system: deps tools build ## Run the black-box suite: recovery, scale, several daemons (as root)
	cd test/system && $(GO) test -vet=off -count=1 -timeout 20m -v . -args -processes 4

.PHONY: kubelet
kubelet: deps tools $(BIN)/kubelet build images ## Run the suite in which a kubelet drives the daemon (as root)
	cd test/kubelet && $(GO) test -vet=off -count=1 -timeout 20m -v . -args -processes 2

.PHONY: critest
critest: deps tools build images ## Run the CRI validation suite against the daemon, in all variants (as root)
	cd test/critest && $(GO) test -count=1 -timeout 30m -v . \
		-args -procs $(PROCS) $(if $(VARIANT),-variant '$(VARIANT)') $(if $(FOCUS),-focus '$(FOCUS)')

.PHONY: test-docs
test-docs: deps tools build images ## Run the commands that the documentation shows (as root)
	cd test/docs && $(GO) test -count=1 -timeout 20m .

# go vet compiles all dependencies of a package before it checks the package. For five more architectures that takes
# minutes, so hack/typecheck checks the types there instead.
.PHONY: typecheck
typecheck: ## Check the types of the daemon's module for all architectures
	@mkdir -p .cache && CGO_ENABLED=0 $(GO) build -o .cache/typecheck ./hack/typecheck
	.cache/typecheck -tags $(TAGS) -arch $(ARCHS) ./...
	cd test/harness && $(CURDIR)/.cache/typecheck -arch $(ARCHS) ./...

.PHONY: vet
vet: typecheck ## Run typecheck, and go vet on every module; faster than lint
	$(GO) vet -tags $(TAGS) ./...
	@for m in $(SUBMODULES); do (cd $$m && echo "go vet $$m" && $(GO) vet ./...); done

# golangci-lint includes go vet.
.PHONY: lint
lint: typecheck $(BIN)/golangci-lint ## Run typecheck, and golangci-lint on every module
	$(LINT) ./...
	@for m in $(SUBMODULES); do (cd $$m && echo "golangci-lint $$m" && $(LINT) ./...); done

# The guest arm64 tests the package for arm64. "vm" runs that guest only if GUEST or SUITE selects it.
vm: DEB_ARCHS := amd64 $(if $(or $(findstring arm64,$(GUEST)),$(if $(GUEST),,$(SUITE))),arm64)
vm-full: DEB_ARCHS := amd64 arm64

.PHONY: vm
vm: vm-deps tools $(BIN)/kubelet build images deb $(if $(findstring cluster,$(SUITE)),cluster-tools build-upgrade) ## Run a selection of suites in virtual machines with systemd, cgroup v2 and AppArmor (as root)
	cd test/vm && $(GO) test -count=1 -timeout 12h -v . -args $(if $(GUEST),-guest '$(GUEST)') $(if $(SUITE),-suite '$(SUITE)') $(if $(FOCUS),-focus '$(FOCUS)')

.PHONY: vm-full
vm-full: vm-full-deps cluster-tools build-upgrade deb ## Run all suites in all virtual machines; takes hours (as root)
	cd test/vm && $(GO) test -count=1 -timeout 12h -v . -args -full $(if $(GUEST),-guest '$(GUEST)')

.PHONY: vm-deps vm-full-deps
vm-deps vm-full-deps:
	@hack/deps.sh $(@:-deps=)

$(BIN)/vm: $(wildcard test/vm/cmd/vm/*.go test/vm/guest/*.go test/vm/wire/*.go) test/vm/go.mod
	cd test/vm && CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/vm

# lint uses only the processor time that the tests leave, because they wait more than they compute. lint needs the
# packages, too: the certificates for the Go proxy, and gcc for the packages with cgo.
.PHONY: test
test: deps ## Run lint, all tests, the CRI validation suite, the kubelet suite, the commands of the documentation and the demo (as root)
	@mkdir -p .cache; \
	nice -n 19 $(MAKE) --no-print-directory lint >.cache/lint.log 2>&1 & lint=$$!; \
	$(MAKE) --no-print-directory suites; suites=$$?; \
	wait $$lint; lint=$$?; cat .cache/lint.log; exit $$(( suites != 0 ? suites : lint ))

.PHONY: suites
suites: root-test ## What "make test" runs, without lint (as root)
	cd test/harness && $(GO) test ./...
	cd test/images && $(GO) test ./...
	cd test/monitoring && $(GO) test -count=1 ./... # the cache does not notice changes of contrib
	cd test/vm && $(GO) test ./guest
	cd tools/protogen && $(GO) test ./...
	CRISERVER_TEST_PATIENCE=$${CRISERVER_TEST_PATIENCE:-3} $(MAKE) --no-print-directory -j2 --output-sync=target \
		system $(BIN)/kubelet kubelet critest test-docs
	$(MAKE) --no-print-directory demo

.PHONY: test-full
test-full: test ## Run test, the CRI validation suite several times with more concurrency, and the tests of a cluster (as root)
	cd test/critest && $(GO) test -count=1 -timeout 30m -v -run TestCRI . -args -long
	$(MAKE) --no-print-directory cluster-test

.PHONY: rules
rules: $(BIN)/promtool ## Check the alerts of contrib with promtool, and run their tests; the first build takes minutes
	$(BIN)/promtool check rules contrib/prometheus/alerts.yaml
	$(BIN)/promtool test rules contrib/prometheus/alerts_test.yaml

.PHONY: demo
demo: deps tools build images ## Run nginx in a pod, kill and restart the daemon, clean up; about a minute (as root)
	@test/demo/demo.sh

# The tests of a cluster upgrade the nodes to this build.
.PHONY: build-upgrade
build-upgrade:
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(STRIP) -X main.version=99.0.0' -o $(BIN)/upgrade/ ./cmd/criserver

.PHONY: cluster-tools
cluster-tools: tools $(CLUSTER_TOOLS) $(BIN)/cluster build images ## Build what a cluster needs; five minutes for the first time

.PHONY: cluster
cluster: cluster-tools ## Run a Kubernetes cluster of criserver nodes until Ctrl-C (as root)
	@exec $(BIN)/cluster up -name $(CLUSTER) -nodes $(NODES) -network $(NETWORK) $(if $(HANDLER),-handler $(HANDLER)) -top $(CURDIR)

.PHONY: cluster-down
cluster-down: $(BIN)/cluster ## Remove the cluster of "make cluster", however it ended (as root)
	@$(BIN)/cluster down -name $(CLUSTER)

.PHONY: cluster-demo
cluster-demo: cluster-tools ## A guided tour of a cluster of two criserver nodes; about a minute (as root)
	@test/demo/cluster.sh

.PHONY: cluster-test
cluster-test: cluster-tools build-upgrade $(if $(RUNTIME),$(BIN)/$(RUNTIME)/$(RUNTIME)) ## Run the tests of a cluster of criserver nodes; SHORT=1 leaves out the longest (as root)
	cd test/cluster && $(GO) test -count=1 ./machine
	cd test/cluster && $(GO) test -count=1 -timeout 30m -v $(if $(SHORT),-short) $(if $(FOCUS)$(RUNTIME),-run '$(or $(FOCUS),TestScale)') . \
		-args -network $(NETWORK) $(if $(HANDLER),-handler $(HANDLER)) $(if $(RUNTIME),-runtime $(CURDIR)/test/cluster/runtimes/$(RUNTIME).sh)

.PHONY: pictures
pictures: deps tools build images ## Draw docs/pictures from a running daemon (as root)
	@hack/pictures.sh

.PHONY: bench
bench: ## Run the Go benchmarks
	$(GO) test -run '^$$' -bench . -benchmem -tags $(TAGS) ./...

.PHONY: docs
docs: ## Generate the reference pages in docs/ from the code
	$(GO) generate -tags $(TAGS) ./cmd/criserver

.PHONY: generate
generate: docs ## Generate the reference pages, and the Go code of the .proto files
	$(GO) generate -tags $(TAGS) ./admin/...

.PHONY: clean
clean: ## Remove bin/ and .cache/
	rm -rf $(BIN) .cache
