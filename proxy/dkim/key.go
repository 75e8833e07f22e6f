package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
)

// Key is one key of the configuration, as ParseKeys makes it.
type Key struct {
	Domain   string   // d= of the signature, lower case and in ASCII; "": that of From
	Selector string   // s= of the signature
	File     string   // PEM: PKCS #1 or PKCS #8, RSA or Ed25519
	From     []string // domains of From that it signs, in the same form; nil: all
}

// Bounds of a key. Verifiers need not take RSA of more (RFC 8301 section 3.2), and less is broken.
const (
	rsaMin     = 2048 // bits
	rsaMax     = 4096
	keyFileMax = 64 << 10 // octets
)

func (k *Key) signs(domain string) bool { return k.From == nil || slices.Contains(k.From, domain) }

// of is d= for a message from domain.
func (k *Key) of(domain string) string {
	if k.Domain == "" {
		return domain
	}
	return k.Domain
}

// name is where DNS has its public half; the star stands for the domain of From.
func (k *Key) name() string { return k.Selector + "._domainkey." + k.of("*") }

// Check reads the file and returns why it cannot sign; nil if it can.
func (k *Key) Check() error {
	text, err := readKey(k.File)
	if err != nil {
		return err
	}
	_, err = parseKey(text)
	return err
}

// ring keeps what was read last for a key.
type ring struct {
	Key

	mu     sync.Mutex
	sum    [sha256.Size]byte // of the file that signer is from; zero: none was read yet
	signer crypto.Signer     // nil: none
	err    error             // why it could not be used the last time
}

// use returns the key as its file is now. Reading it each time costs some microseconds, a hundredth of a signature, and no
// change of it can be missed. What changes is logged once; unusable counts the keys that are not.
func (k *ring) use(log *zap.Logger, unusable *atomic.Int32) (crypto.Signer, error) {
	text, err := readKey(k.File)
	k.mu.Lock()
	defer k.mu.Unlock()
	if sum := sha256.Sum256(text); err == nil && (sum != k.sum || k.signer == nil) {
		var fresh crypto.Signer
		if fresh, err = parseKey(text); err == nil && k.signer != nil {
			log.Info("signing key has changed", zap.String("key", k.name()))
		}
		k.sum, k.signer = sum, fresh
	}
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", ErrKey, k.name(), err)
	}
	switch {
	case err != nil && k.err == nil:
		unusable.Add(1)
		log.Error("signing key not usable, mail that needs it waits", zap.String("key", k.name()), zap.Error(err))
	case err == nil && k.err != nil:
		unusable.Add(-1)
		log.Info("signing key usable again", zap.String("key", k.name()))
	}
	k.err = err
	return k.signer, err
}

func (k *ring) failure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(err)
	}
	text, err := io.ReadAll(io.LimitReader(f, keyFileMax+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, unreadable(err)
	}
	if len(text) > keyFileMax {
		return nil, fmt.Errorf("has more than %d octets", keyFileMax)
	}
	return text, nil
}

// unreadable leaves out the path, which its readers know from elsewhere.
func unreadable(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("cannot be read: %w", err)
}

// parseKey reads the first private key in text. Errors repeat nothing of it.
func parseKey(text []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("holds no private key in PEM (PRIVATE KEY or RSA PRIVATE KEY)")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errors.New("is encrypted")
			}
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("is encrypted")
		default:
			continue
		}
		if err != nil {
			return nil, errors.New("holds a private key that is damaged")
		}
		return fit(key)
	}
}

func fit(key any) (crypto.Signer, error) {
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return k, nil
	case *rsa.PrivateKey:
		if bits := k.N.BitLen(); bits < rsaMin || bits > rsaMax {
			return nil, fmt.Errorf("is RSA of %d bits, not of %d to %d", bits, rsaMin, rsaMax)
		}
		return k, nil
	}
	return nil, errors.New("is neither RSA nor Ed25519")
}
