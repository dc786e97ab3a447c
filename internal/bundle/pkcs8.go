package bundle

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // people have files that are encrypted so
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"unicode/utf16"
)

// encryptedKey is an encrypted private key, RFC 5958 section 3.
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// encrypted reads an encrypted PKCS#8 key.
func (r *reader) encrypted(data []byte) error {
	var sealed encryptedKey
	if _, err := asn1.Unmarshal(data, &sealed); err != nil {
		return fmt.Errorf("decoding an encrypted key: %w", err)
	}
	open, err := opener(sealed.Algorithm)
	if err != nil {
		return err
	}
	password, err := r.password()
	if err != nil {
		return err
	}
	block, iv, err := open(password)
	if err != nil {
		return err
	}
	der, ok := decrypt(block, iv, sealed.Data)
	if !ok {
		return ErrPassword
	}
	key, err := parseKey(der)
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return ErrPassword // its padding happened to look right
	}
	if err != nil {
		return err
	}
	r.addKey(key)
	return nil
}

// decrypt decrypts in CBC mode and takes the padding off, or reports that there is no valid
// padding, as is most likely with a wrong password.
func decrypt(block cipher.Block, iv, data []byte) ([]byte, bool) {
	size := block.BlockSize()
	if len(iv) != size || len(data) == 0 || len(data)%size != 0 {
		return nil, false
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	n := int(plain[len(plain)-1])
	if n == 0 || n > size || !bytes.HasSuffix(plain, bytes.Repeat(plain[len(plain)-1:], n)) {
		return nil, false
	}
	return plain[:len(plain)-n], true
}

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

// open makes the cipher of a password.
type open func(password string) (block cipher.Block, iv []byte, err error)

// maxIterations is more than anybody would wait for.
const maxIterations = 10_000_000

// opener reads how a key is encrypted: by PBES2, which has been usual for twenty years, or by
// what there was before.
func opener(algorithm pkix.AlgorithmIdentifier) (open, error) {
	if algorithm.Algorithm.Equal(oidPBES2) {
		return pbes2(algorithm.Parameters.FullBytes)
	}
	var p struct {
		Salt       []byte
		Iterations int
	}
	if !isA(algorithm.Parameters.FullBytes, &p) || p.Iterations < 1 || p.Iterations > maxIterations {
		return nil, fmt.Errorf("%w encryption %s", ErrUnsupported, algorithm.Algorithm)
	}
	switch algorithm.Algorithm.String() {
	case "1.2.840.113549.1.5.3": // pbeWithMD5AndDES-CBC, the default of openssl pkcs8 until 1.1.0
		return pbes1(md5.New, p.Salt, p.Iterations), nil
	case "1.2.840.113549.1.5.10": // pbeWithSHA1AndDES-CBC
		return pbes1(sha1.New, p.Salt, p.Iterations), nil
	case "1.2.840.113549.1.12.1.3": // pbeWithSHAAnd3-KeyTripleDES-CBC, that of PKCS#12
		return func(password string) (cipher.Block, []byte, error) {
			block, err := des.NewTripleDESCipher(pkcs12Key(password, p.Salt, p.Iterations, 1, 24)) //nolint:gosec // as the file has it
			return block, pkcs12Key(password, p.Salt, p.Iterations, 2, des.BlockSize), err
		}, nil
	}
	return nil, fmt.Errorf("%w encryption %s; openssl pkey -aes256 writes the key in a way that can be read", ErrUnsupported, algorithm.Algorithm)
}

// ciphers are the block ciphers of PBES2, by object identifier.
var ciphers = map[string]struct {
	size  int // of the key
	block func(key []byte) (cipher.Block, error)
}{
	"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
	"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
	"1.3.14.3.2.7":            {8, des.NewCipher},
}

// hashes are the pseudo-random functions of PBKDF2, by object identifier.
var hashes = map[string]func() hash.Hash{
	"":                    sha1.New, // the default
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
	"1.2.840.113549.2.12": sha512.New512_224,
	"1.2.840.113549.2.13": sha512.New512_256,
}

// pbes2 is RFC 8018 section 6.2.
func pbes2(parameters []byte) (open, error) {
	var p struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	if _, err := asn1.Unmarshal(parameters, &p); err != nil {
		return nil, fmt.Errorf("decoding how the key is encrypted: %w", err)
	}
	if !p.KDF.Algorithm.Equal(oidPBKDF2) {
		return nil, fmt.Errorf("%w key derivation %s; openssl pkey -aes256 writes the key in a way that can be read", ErrUnsupported, p.KDF.Algorithm)
	}
	var kdf struct {
		Salt       []byte
		Iterations int
		Length     int                      `asn1:"optional"`
		Hash       pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(p.KDF.Parameters.FullBytes, &kdf); err != nil {
		return nil, fmt.Errorf("decoding how the key is encrypted: %w", err)
	}
	c, ok := ciphers[p.Cipher.Algorithm.String()]
	newHash, known := hashes[kdf.Hash.Algorithm.String()]
	if !ok || !known || kdf.Iterations < 1 || kdf.Iterations > maxIterations || kdf.Length != 0 && kdf.Length != c.size {
		return nil, fmt.Errorf("%w encryption %s with %s; openssl pkey -aes256 writes the key in a way that can be read",
			ErrUnsupported, p.Cipher.Algorithm, kdf.Hash.Algorithm)
	}
	var iv []byte
	if _, err := asn1.Unmarshal(p.Cipher.Parameters.FullBytes, &iv); err != nil {
		return nil, fmt.Errorf("decoding how the key is encrypted: %w", err)
	}
	return func(password string) (cipher.Block, []byte, error) {
		key, err := pbkdf2.Key(newHash, password, kdf.Salt, kdf.Iterations, c.size)
		if err != nil {
			return nil, nil, err
		}
		block, err := c.block(key)
		return block, iv, err
	}, nil
}

// pbes1 is RFC 8018 section 6.1: the hash of a hash, again and again, is key and IV.
func pbes1(newHash func() hash.Hash, salt []byte, iterations int) open {
	return func(password string) (cipher.Block, []byte, error) {
		sum := append([]byte(password), salt...)
		for range iterations {
			h := newHash()
			h.Write(sum)
			sum = h.Sum(nil)
		}
		block, err := des.NewCipher(sum[:8]) //nolint:gosec // as the file has it
		return block, sum[8:16], err
	}
}

// pkcs12Key is the key derivation of PKCS#12 with SHA-1, RFC 7292 appendix B.2. Purpose is 1
// for a key and 2 for an IV.
func pkcs12Key(password string, salt []byte, iterations int, purpose byte, size int) []byte {
	const block = sha1.BlockSize
	units := append(utf16.Encode([]rune(password)), 0)
	text := make([]byte, 0, 2*len(units))
	for _, unit := range units {
		text = append(text, byte(unit>>8), byte(unit)) //nolint:gosec // both halves are written
	}
	input := append(stretch(salt, block), stretch(text, block)...)
	diversifier := bytes.Repeat([]byte{purpose}, block)
	var out []byte
	for {
		sum := sha1.Sum(append(bytes.Clone(diversifier), input...))
		a := sum[:]
		for range iterations - 1 {
			sum = sha1.Sum(a)
			a = bytes.Clone(sum[:])
		}
		if out = append(out, a...); len(out) >= size {
			return out[:size]
		}
		// Each block of the input grows by the output, repeated, and by one.
		add := new(big.Int).SetBytes(stretch(a, block))
		add.Add(add, big.NewInt(1))
		for i := 0; i < len(input); i += block {
			sum := new(big.Int).Add(new(big.Int).SetBytes(input[i:i+block]), add)
			sum.SetBit(sum, 8*block, 0)
			sum.FillBytes(input[i : i+block])
		}
	}
}

// stretch repeats data up to the next multiple of size.
func stretch(data []byte, size int) []byte {
	if len(data) == 0 {
		return nil
	}
	length := (len(data) + size - 1) / size * size
	return bytes.Repeat(data, length/len(data)+1)[:length]
}
