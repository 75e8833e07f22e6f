package oauth

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"time"
)

// assertionLife is how long what we sign is good for; it is used at once.
const assertionLife = 10 * time.Minute

// certificateAssertion says who the application is, signed with its key (RFC 7523 section 3). The header names the certificate by
// its thumbprint, by which Microsoft finds it.
func (s *Source) certificateAssertion(endpoint string, now time.Time) (string, error) {
	certText, err := readSecret("cert_file", s.cfg.CertFile)
	if err != nil {
		return "", err
	}
	keyText, err := readSecret("key_file", s.cfg.KeyFile)
	if err != nil {
		return "", err
	}
	cert, err := parseCertificate([]byte(certText))
	if err != nil {
		return "", broken("cert_file", err)
	}
	key, err := parseKey([]byte(keyText))
	if err != nil {
		return "", broken("key_file", err)
	}
	if public, ok := cert.PublicKey.(*rsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return "", broken("key_file", errors.New("is not the key of cert_file"))
	}
	algorithm, header := PS256, map[string]any{}
	if s.cfg.Algorithm == RS256 {
		algorithm = RS256
		sum := sha1.Sum(cert.Raw) // RFC 7515 section 4.1.7; it names the certificate and secures nothing
		header["x5t"] = encode(sum[:])
	} else {
		sum := sha256.Sum256(cert.Raw)
		header["x5t#S256"] = encode(sum[:])
	}
	claims := map[string]any{"aud": endpoint, "iss": s.cfg.ClientID, "sub": s.cfg.ClientID, "jti": rand.Text(),
		"nbf": now.Unix(), "iat": now.Unix(), "exp": now.Add(assertionLife).Unix()}
	signed, err := sign(algorithm, header, claims, key)
	if err != nil {
		return "", broken("key_file", err)
	}
	return signed, nil
}

// sign makes a JSON Web Token (RFC 7519) in compact form.
func sign(algorithm string, header, claims map[string]any, key *rsa.PrivateKey) (string, error) {
	header["alg"], header["typ"] = algorithm, "JWT"
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := encode(h) + "." + encode(c)
	sum := sha256.Sum256([]byte(text))
	var signature []byte
	if algorithm == RS256 {
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	} else {
		signature, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	if err != nil {
		return "", err
	}
	return text + "." + encode(signature), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func parseCertificate(text []byte) (*x509.Certificate, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, errors.New("holds no PEM certificate")
}

// parseKey reads an RSA key in the form of PKCS #8 or PKCS #1. Its errors say nothing of what the text holds.
func parseKey(text []byte) (*rsa.PrivateKey, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "RSA PRIVATE KEY":
			if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
				return key, nil
			}
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if rsaKey, ok := key.(*rsa.PrivateKey); err == nil && ok {
				return rsaKey, nil
			}
		}
	}
	return nil, errors.New("holds no RSA key in PEM, without a passphrase")
}
