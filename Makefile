# What a developer types. "make check" needs nothing but Go and a C compiler (for the race detector); .ci/run adds what needs
# packages of the system.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Run through the go command, which builds them once and keeps them in its cache.
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI    = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
HELM        = go run helm.sh/helm/v3/cmd/helm@v3.22.0

# The build tags of tests that need root, Postfix or much time.
RIGS        = postfix,backlog,crash,planted,commit,throng,flight

CHART        = charts/mailweir
CHART_CASES  = emptydir pvc
HELM_TEMPLATE = $(HELM) template demo $(CHART) --namespace mail --kube-version 1.29.0

.PHONY: build test check fmt vet staticcheck race lint bench bench-commit commit states demo interop backlog crash crash-ci planted \
        fleet fleet-ci fleet-pictures throng throng-ci throng-unscaled throng-postfix flight chart chart-golden image clean

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/mailweir ./cmd/mailweir

test:
	go test ./...

check: fmt vet staticcheck race

fmt:
	@files=$$(gofmt -l .) || exit 1; \
	if [ -n "$$files" ]; then echo "gofmt -w these:"; echo "$$files"; exit 1; fi

vet:
	go vet ./...
	go vet -tags=$(RIGS) ./bench/...

staticcheck:
	$(STATICCHECK) ./...
	$(STATICCHECK) -tags=$(RIGS) ./bench/...

race:
	go test -race -shuffle=on -timeout 20m ./...

# More of the same kind than check has; takes minutes to build the first time.
lint:
	$(GOLANGCI) run ./...

bench:
	go test -run '^$$' -bench . -benchmem ./...

# What it costs that 250 means synced, as ratios; on a machine that does nothing else meanwhile.
commit:
	go test -tags=commit -count=1 -v -timeout 5m -run 'Senders?' ./bench/commit

# The table of bench/commit. As root with Postfix: make bench-commit BENCH_TAGS=postfix
bench-commit:
	go test -tags=commit,$(BENCH_TAGS) -count=1 -timeout 30m -v -run '^TestTable$$' ./bench/commit -table

demo:
	go run ./cmd/mailweir demo

# Against real servers and real clients; as root, see bench/interop. Never from the cache: go cannot see that Postfix changed.
interop:
	go test -tags=postfix -count=1 -v -timeout 8m ./bench/interop

# What a pile of pending messages costs: memory, the time of a start, the rate of acceptance. A release is measured with
# MESSAGES=1000000, which takes 2.5 GB of disk below TMPDIR.
MESSAGES ?= 100000
backlog:
	go test -tags=backlog -count=1 -v -timeout 15m ./bench/backlog -messages $(MESSAGES)

# Power cuts, kills and full disks, on the real binary and real file systems; as root, see bench/crash. crash-ci takes minutes,
# crash is for a release and takes hours.
crash-ci:
	go test -tags=crash -count=1 -v -timeout 30m ./bench/crash

crash:
	go test -tags=crash -count=1 -v -timeout 6h ./bench/crash -cuts=10000 -postfix-cuts=100 -kills=3000 -terms=400 -stall=30s \
		-hits=25 -memorykills=50 -owners=1000

# 100,000 crashes of a journal in memory, within a minute.
states:
	go test -count=1 -v -timeout 5m -run '^TestCrashStates$$' ./proxy/journal -states 100000

# Whether the tests see what they are there to see.
planted:
	go test -tags=planted -count=1 -v -timeout 15m ./bench/planted

# The flow control against its bars, in a simulation of up to a thousand processes; fleet-ci has fewer seeds and takes a minute.
fleet:
	go run ./bench/fleet

fleet-ci:
	go run ./bench/fleet -quick

# The pictures of bench/fleet: always the same, as long as flowctl is.
fleet-pictures:
	go run ./bench/fleet -bars 3,8,10 -draw bench/fleet/pictures

# What the simulation promises, with processes of the real binary beside one relay; see bench/throng. throng takes a quarter of an hour,
# throng-unscaled two hours, both want a quiet machine; throng-postfix, as root, compares with Postfix. throng-ci has only what does not
# depend on how fast the machine is.
THRONG    = go test -tags=throng -count=1 -v
MANY      = -weirs=40 -bulk=5 -limit=20 -service=100ms -trickle=3s
throng-ci:
	$(THRONG) -timeout 10m -run 'Figures|Session|Quota' ./bench/throng

throng:
	$(THRONG) -timeout 40m ./bench/throng $(MANY) -scale=0.1 -warmup=1m -measure=3m

throng-unscaled:
	$(THRONG) -timeout 6h ./bench/throng $(MANY) -scale=1 -warmup=5m -measure=30m

throng-postfix:
	go test -tags=throng,postfix -count=1 -v -timeout 40m -run '^TestBesidePostfix$$' ./bench/throng -service=100ms

# How many messages a connection carries over a distance, on each level of pipelining; as root, with Postfix, see bench/flight. For Exim beside
# it, whose package excludes Postfix's: apt-get download exim4-daemon-light && dpkg -x exim4-daemon-light_*.deb root, and EXIM=root/usr/sbin/exim4
EXIM ?=
flight:
	go test -tags=flight -count=1 -v -timeout 15m ./bench/flight -exim '$(abspath $(EXIM))'

chart:
	@set -e; for c in $(CHART_CASES); do \
		$(HELM) lint --strict $(CHART) -f $(CHART)/testdata/$$c.values.yaml; \
		$(HELM_TEMPLATE) -f $(CHART)/testdata/$$c.values.yaml | diff -u $(CHART)/testdata/$$c.golden.yaml - || \
			{ echo "the chart renders differently; make chart-golden if that is meant"; exit 1; }; \
	done

chart-golden:
	@set -e; for c in $(CHART_CASES); do \
		$(HELM_TEMPLATE) -f $(CHART)/testdata/$$c.values.yaml > $(CHART)/testdata/$$c.golden.yaml; \
	done

image:
	docker build --build-arg VERSION=$(VERSION) -t mailweir:$(VERSION) .

clean:
	rm -rf bin
