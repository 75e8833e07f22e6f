package dkim

import (
	"crypto/rsa"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"
)

func TestKeysAreReadFromYAML(t *testing.T) {
	keys, err := ParseKeys([]byte("# ours\n- domain: A.example\n  selector: S1.Mail\n  key_file: /k/1.pem\n- {domain: '*', selector: s, key_file: /k/2.pem}\n" +
		"- {domain: a.example, from: [A.example, a.example, b.example], selector: s2, key_file: /k/3.pem}\n- {domain: c.example, from: '*', selector: s, key_file: /k/4.pem}"))
	want := []Key{
		{Domain: "a.example", Selector: "s1.mail", File: "/k/1.pem", From: []string{"a.example"}},
		{Selector: "s", File: "/k/2.pem"},
		{Domain: "a.example", Selector: "s2", File: "/k/3.pem", From: []string{"a.example", "b.example"}},
		{Domain: "c.example", Selector: "s", File: "/k/4.pem"},
	}
	if err != nil || !reflect.DeepEqual(keys, want) {
		t.Errorf("%+v, %v", keys, err)
	}
	for _, none := range []string{"", "# nothing", "[]", "null"} {
		if keys, err := ParseKeys([]byte(none)); err != nil || len(keys) != 0 {
			t.Errorf("%q: %+v, %v", none, keys, err)
		}
	}
}

func TestEveryFaultOfTheKeysIsNamed(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"x", "are no YAML list: unmarshal errors: line 1: cannot unmarshal !!str `x` into []yaml.Node"},
		{"[x, {}]", "key 1: is no mapping of domain, from, key_file, selector\nkey 2: key_file: is missing\nkey 2: selector: is missing"},
		{"[{domain: 'a b', selector: 's;x', key: k, key_file: [], key_file: f}]",
			"key 1: domain: \"a b\" is no name of DNS\nkey 1: selector: \"s;x\" is no name of DNS\n" +
				"key 1: key: is no field; there are domain, from, key_file, selector\nkey 1: key_file: is no text\nkey 1: key_file: stands twice"},
		{"[{from: {}, selector: s, key_file: f}, {from: [], selector: t, key_file: f}, {from: [a..b], selector: u, key_file: f}]",
			"key 1: from: is neither a domain nor a list of them\nkey 2: from: is neither a domain nor a list of them\nkey 3: from: \"a..b\" is no name of DNS"},
		{"[{domain: a.example, selector: s, key_file: f}, {domain: A.example, selector: S, key_file: g}]",
			"key 2: selector: stands twice for this domain, where DNS has one key"},
		{"[" + strings.Repeat("{domain: a.example, selector: s, key_file: f},", KeysMax+1) + "]", "are 1001, more than 1000"},
		{strings.Repeat("#", KeysTextMax+1), "are 65537 octets, more than 65536"},
	} {
		_, err := ParseKeys([]byte(c.text))
		if err == nil || err.Error() != c.want {
			t.Errorf("%.80q:\n%v\nwant\n%s", c.text, err, c.want)
		}
	}
}

func TestAMessageHasSoManySignatures(t *testing.T) {
	var list []string
	for i := range SignaturesMax {
		list = append(list, fmt.Sprintf("{domain: a.example, selector: s%d, key_file: f}", i))
	}
	list = append(list, "{domain: b.example, selector: s, key_file: f}")
	if _, err := ParseKeys([]byte("[" + strings.Join(list, ",") + "]")); err != nil {
		t.Error(err)
	}
	list = append(list, "{selector: s, key_file: f}")
	if _, err := ParseKeys([]byte("[" + strings.Join(list, ",") + "]")); err == nil || err.Error() != "would sign one message 9 times, more than 8" {
		t.Error(err)
	}
}

func TestKeysThatVerifiersWouldNotTakeAreRefused(t *testing.T) {
	for file, want := range map[string]string{
		"rsa.pem": "", "rsa-pkcs1.pem": "", "ed25519.pem": "",
		"rsa1024.pem":         "is RSA of 1024 bits, not of 2048 to 4096",
		"ec.pem":              "is neither RSA nor Ed25519",
		"encrypted.pem":       "is encrypted",
		"encrypted-pkcs1.pem": "is encrypted",
		"public.pem":          "holds no private key in PEM (PRIVATE KEY or RSA PRIVATE KEY)",
		"damaged.pem":         "holds a private key that is damaged",
		"":                    "cannot be read: is a directory",
		"nothing.pem":         "cannot be read: no such file or directory",
	} {
		k := Key{File: testKey(file)}
		if err := k.Check(); err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
	long := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), rsaMax)}}
	if _, err := fit(long); err == nil {
		t.Error("4097 bits were taken")
	}
}
