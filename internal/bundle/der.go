package bundle

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

var (
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
)

// der reads a binary file, which does not say what it is.
func (r *reader) der(data []byte) error {
	if certs, err := x509.ParseCertificates(data); err == nil {
		for _, cert := range certs {
			r.addCertificate(cert)
		}
		return nil
	}
	var pfx struct {
		Version  int
		AuthSafe struct{ ContentType asn1.ObjectIdentifier }
		Mac      asn1.RawValue `asn1:"optional"`
	}
	var message contentInfo
	var sealed encryptedKey
	switch {
	case isA(data, &pfx) && pfx.AuthSafe.ContentType.Equal(oidData):
		return r.pkcs12(data)
	case isA(data, &message) && message.Type.Equal(oidSignedData):
		return r.pkcs7(data)
	case isA(data, &sealed):
		return r.encrypted(data)
	}
	key, err := parseKey(data)
	if err != nil {
		return err
	}
	r.addKey(key)
	return nil
}

// isA reports whether data has the form of v, which is filled in. Structures in it may have
// more fields at their ends than v has.
func isA(data []byte, v any) bool {
	_, err := asn1.Unmarshal(data, v)
	return err == nil
}

// contentInfo is the outermost structure of PKCS#7, RFC 5652 section 3.
type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"explicit,tag:0,optional"`
}

// pkcs7 reads the certificates of a PKCS#7 file, which has no keys.
func (r *reader) pkcs7(data []byte) error {
	var message contentInfo
	if _, err := asn1.Unmarshal(data, &message); err != nil {
		return fmt.Errorf("decoding PKCS#7: %w", err)
	}
	if !message.Type.Equal(oidSignedData) {
		return errors.New("the PKCS#7 data has no certificates")
	}
	var signed struct { // RFC 5652 section 5.1
		Version      int
		Digests      asn1.RawValue
		Content      asn1.RawValue
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		Lists        asn1.RawValue `asn1:"optional,tag:1"`
		Signers      asn1.RawValue
	}
	if _, err := asn1.Unmarshal(message.Content.Bytes, &signed); err != nil {
		return fmt.Errorf("decoding PKCS#7: %w", err)
	}
	for rest := signed.Certificates.Bytes; len(rest) > 0; {
		var one asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &one); err != nil {
			return fmt.Errorf("decoding PKCS#7: %w", err)
		}
		r.certificate(one.FullBytes)
	}
	return nil
}

// pkcs12 reads a PKCS#12 file, all of it under one password. Many have an empty one.
func (r *reader) pkcs12(data []byte) error {
	private, leaf, others, err := pkcs12.DecodeChain(data, "")
	if err != nil {
		var password string
		if password, err = r.password(); err != nil {
			return err
		}
		private, leaf, others, err = pkcs12.DecodeChain(data, password)
	}
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return ErrPassword
	case err != nil:
		return err
	}
	key, err := signer(private)
	if err != nil {
		return err
	}
	r.addKey(key)
	for _, cert := range append([]*x509.Certificate{leaf}, others...) {
		r.addCertificate(cert)
	}
	return nil
}

// parseKey reads a private key in any of the three structures there are.
func parseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		var form struct {
			Version   int
			Algorithm pkix.AlgorithmIdentifier
			Key       []byte
		}
		if isA(der, &form) {
			return nil, fmt.Errorf("%w kind of key: %w", ErrUnsupported, err)
		}
		return nil, fmt.Errorf("it is not understood: %w", err)
	}
	return signer(key)
}

func signer(key any) (crypto.Signer, error) {
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w kind of key: %T cannot sign", ErrUnsupported, key)
	}
	return s, nil
}
