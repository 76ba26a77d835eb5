// Ciphertexts of Go's crypto packages, as JSON: a row for each combination. The plaintext is 31 * i + 7.
package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
)

type options map[string]any

type row struct {
	Cipher    string  `json:"cipher"`
	Layout    string  `json:"layout"`
	Algorithm string  `json:"algorithm"`
	Size      int     `json:"size"`
	Options   options `json:"options"`
	Output    string  `json:"output"`
}

var rows []row

func plain(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(31*i + 7)
	}
	return data
}

func key(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i + 1)
	}
	return data
}

func iv(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(0xf0 - size + i)
	}
	return data
}

func add(name, layout, algorithm string, size int, output []byte, given options) {
	for name, value := range given {
		if data, is := value.([]byte); is {
			given[name] = hex.EncodeToString(data)
		}
	}
	rows = append(rows, row{name, layout, algorithm, size, given, hex.EncodeToString(output)})
}

func block(size int) cipher.Block {
	made, err := aes.NewCipher(key(size))
	if err != nil {
		panic(err)
	}
	return made
}

func cbc(made cipher.Block, data []byte) []byte {
	size := made.BlockSize()
	count := size - len(data)%size
	data = append(data, bytes.Repeat([]byte{byte(count)}, count)...)
	cipher.NewCBCEncrypter(made, iv(size)).CryptBlocks(data, data)
	return data
}

func stream(made cipher.Stream, data []byte) []byte {
	made.XORKeyStream(data, data)
	return data
}

func main() {
	for _, size := range []int{16, 24, 32} {
		add(fmt.Sprintf("aes-%d cipher.NewCBCEncrypter", 8*size), "PKCS7", "cbc(aes)", 47, cbc(block(size), plain(47)),
			options{"key": key(size), "iv": iv(16)})
	}
	triple, _ := des.NewTripleDESCipher(key(24))
	add("des.NewTripleDESCipher, CBC", "PKCS7", "cbc(des3_ede)", 40, cbc(triple, plain(40)),
		options{"key": key(24), "iv": iv(8)})
	ones := bytes.Repeat([]byte{255}, 16)
	add("aes-256 cipher.NewCTR", "the counter wraps", "ctr(aes)", 90, stream(cipher.NewCTR(block(32), ones), plain(90)),
		options{"key": key(32), "iv": ones})
	for _, each := range []struct {
		name, algorithm string
		made            cipher.Stream
	}{
		{"CTR", "ctr(aes)", cipher.NewCTR(block(16), iv(16))},
		{"OFB", "ofb(aes)", cipher.NewOFB(block(16), iv(16))},
		{"CFB", "cfb(aes)", cipher.NewCFBEncrypter(block(16), iv(16))},
	} {
		add("aes-128 cipher.New"+each.name, "IV in front", each.algorithm, 61,
			append(iv(16), stream(each.made, plain(61))...), options{"key": key(16), "ivPrefix": true})
	}
	for _, size := range []int{16, 32} {
		gcm, _ := cipher.NewGCM(block(size))
		add(fmt.Sprintf("aes-%d cipher.NewGCM", 8*size), "Seal: tag at the end", "gcm(aes)", 85,
			gcm.Seal(nil, iv(12), plain(85), []byte("name")),
			options{"key": key(size), "iv": iv(12), "associatedData": []byte("name")})
		add(fmt.Sprintf("aes-%d cipher.NewGCM", 8*size), "nonce in front", "gcm(aes)", 85,
			gcm.Seal(iv(12), iv(12), plain(85), nil), options{"key": key(size), "ivPrefix": true})
	}
	text, _ := json.Marshal(map[string]any{"by": "Go " + runtime.Version()[2:], "rows": rows})
	fmt.Println(string(text))
}
