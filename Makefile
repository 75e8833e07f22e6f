# What a developer types. "make check" needs nothing but Go and a C compiler (for the race detector); .ci/run adds what needs
# packages of the system.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Run through the go command, which builds them once and keeps them in its cache.
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI    = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
HELM        = go run helm.sh/helm/v3/cmd/helm@v3.22.0

CHART        = charts/mailweir
CHART_CASES  = emptydir pvc
HELM_TEMPLATE = $(HELM) template demo $(CHART) --namespace mail --kube-version 1.29.0

.PHONY: build test check fmt vet staticcheck race lint bench demo interop chart chart-golden image clean

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
	go vet -tags=postfix ./bench/interop

staticcheck:
	$(STATICCHECK) ./...
	$(STATICCHECK) -tags=postfix ./bench/interop

race:
	go test -race -shuffle=on -timeout 10m ./...

# More of the same kind than check has; takes minutes to build the first time.
lint:
	$(GOLANGCI) run ./...

bench:
	go test -run '^$$' -bench . -benchmem ./...

demo:
	go run ./cmd/mailweir demo

# Against a real Postfix and real clients; as root, see bench/interop. Never from the cache: go cannot see that Postfix changed.
interop:
	go test -tags=postfix -count=1 -v -timeout 8m ./bench/interop

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
