package upstream

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// tlsSessions bounds how many sessions are remembered for resumption.
const tlsSessions = 32

// tlsFiles makes the tls.Config of a handshake. It reads the files anew each time, so that a renewed certificate acts with the
// next connection. It is safe for concurrent use.
type tlsFiles struct {
	caFile, certFile, keyFile string // "": none; the system's authorities
	base                      tls.Config

	mu   sync.Mutex
	sum  [sha256.Size]byte // of what the files held
	made *tls.Config       // from that; nil: nothing yet
}

// newTLS returns the files and settings for TLS. The server's name is that of the host, unless it is set.
func newTLS(c Config, verify bool) *tlsFiles {
	f := &tlsFiles{caFile: c.CAFile, certFile: c.CertFile, keyFile: c.KeyFile}
	f.base.ServerName, f.base.MinVersion = c.ServerName, tls.VersionTLS12
	if !verify {
		f.base.InsecureSkipVerify = true // any certificate is better than the clear text that would be used otherwise (RFC 7435)
	}
	return f
}

// config returns the one for the files as they are now. A file that cannot be used is a fault of the settings.
func (f *tlsFiles) config() (*tls.Config, error) {
	var content [3][]byte
	hash := sha256.New()
	for i, file := range []struct{ setting, path string }{{"ca_file", f.caFile}, {"cert_file", f.certFile}, {"key_file", f.keyFile}} {
		if file.path == "" {
			continue
		}
		b, err := readFile(file.setting, file.path)
		if err != nil {
			return nil, err
		}
		content[i] = b
		fmt.Fprintf(hash, "%d\n", len(b))
		hash.Write(b)
	}
	sum := [sha256.Size]byte(hash.Sum(nil))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.made != nil && f.sum == sum {
		return f.made, nil
	}
	made, err := f.build(content[0], content[1], content[2])
	if err != nil {
		return nil, err
	}
	f.sum, f.made = sum, made
	return made, nil
}

// fileMax bounds a file of the settings, in octets; a bundle of all authorities has some 200,000.
const fileMax = 4 << 20

// readFile reads what a setting names. That it cannot is a fault of the settings.
func readFile(setting, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("upstream: read %s: %w: %w", setting, err, errSettings)
	}
	b, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("upstream: read %s: %w: %w", setting, err, errSettings)
	}
	if len(b) > fileMax {
		return nil, fmt.Errorf("upstream: read %s: is larger than %d octets: %w", setting, fileMax, errSettings)
	}
	return b, nil
}

// build starts without remembered sessions: those were agreed on with other certificates.
func (f *tlsFiles) build(ca, cert, key []byte) (*tls.Config, error) {
	made := f.base.Clone()
	made.ClientSessionCache = tls.NewLRUClientSessionCache(tlsSessions)
	if f.caFile != "" {
		made.RootCAs = x509.NewCertPool()
		if !made.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("upstream: read ca_file: %s holds no PEM certificate: %w", f.caFile, errSettings)
		}
	}
	if f.certFile != "" {
		pair, err := tls.X509KeyPair(cert, bytes.TrimSpace(key))
		if err != nil {
			return nil, fmt.Errorf("upstream: read cert_file and key_file: %v: %w", err, errSettings)
		}
		// Also to a server whose list of authorities leaves ours out: it then says what it has against it.
		made.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return made, nil
}
