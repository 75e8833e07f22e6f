# The image holds one static binary, the certificate authorities, and the directory of the journal.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/mailweir ./cmd/mailweir
RUN mkdir -p -m 0700 /out/journal

FROM scratch
LABEL org.opencontainers.image.source="https://github.com/mailweir/mailweir" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/mailweir /mailweir

# The user has to be able to write here, also when nothing is mounted; a new named volume takes over this owner.
# There is no VOLUME on purpose: an anonymous one looks durable and is gone with "docker run --rm". Without a
# mount the directory is the container's own layer, and mailweir refuses to start on that unless told otherwise.
COPY --from=build --chown=65532:65532 /out/journal /var/lib/mailweir

USER 65532:65532
ENTRYPOINT ["/mailweir"]
CMD ["run"]

# Docker looks at this, Kubernetes does not: there, use the probes of the example.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/mailweir", "healthcheck"]
