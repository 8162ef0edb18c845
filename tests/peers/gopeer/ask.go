package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"filippo.io/torchwood"
	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// tree is a log's, in memory; at n it has the root of its first n entries.
type tree []tlog.Hash

func (t tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for at, index := range indexes {
		found[at] = t[index]
	}
	return found, nil
}

func grow(entries int64, text string) (tree, error) {
	var made tree
	for n := range entries {
		hashes, err := tlog.StoredHashes(n, fmt.Appendf(nil, "%s %d", text, n), made)
		if err != nil {
			return nil, err
		}
		made = append(made, hashes...)
	}
	return made, nil
}

type asker struct {
	url     string
	signer  note.Signer
	witness note.Verifier
	client  http.Client
}

// signed is the checkpoint of a tree's first n entries.
func (a asker) signed(of tree, n int64, origin string, by note.Signer) (string, error) {
	root, err := tlog.TreeHash(n, of)
	if err != nil {
		return "", err
	}
	text := torchwood.Checkpoint{Origin: origin, Tree: tlog.Tree{N: n, Hash: root}}.String()
	made, err := note.Sign(&note.Note{Text: text}, by)
	return string(made), err
}

// post asks the witness: its status, its body's type and its body. A cosignature that does not verify is an error.
func (a asker) post(body, checkpoint string) (result, error) {
	answer, err := a.client.Post(strings.TrimSuffix(a.url, "/")+"/add-checkpoint", "", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		opened, err := note.Open([]byte(checkpoint+string(said)), note.VerifierList(a.witness))
		if err != nil {
			return nil, fmt.Errorf("the cosignature: %w", err)
		}
		stamp, err := torchwood.CosignatureTimestamp(opened.Sigs[0])
		if err != nil {
			return nil, err
		}
		if far := time.Now().Unix() - stamp; far < -60 || far > 60 {
			return nil, fmt.Errorf("cosigned %d seconds ago", far)
		}
	}
	return result{"status": answer.StatusCode, "type": answer.Header.Get("Content-Type"), "body": string(said)}, nil
}

func ask(words []string) (result, error) {
	signer, err := note.NewSigner(words[1])
	if err != nil {
		return nil, err
	}
	witness, err := cosignature.NewVerifierForCosignatureV1(words[2])
	if err != nil {
		return nil, err
	}
	a := asker{words[0], signer, witness, http.Client{Timeout: 10 * time.Second}}
	right, err := grow(12, "entry")
	if err != nil {
		return nil, err
	}
	forked, err := grow(12, "another")
	if err != nil {
		return nil, err
	}
	said := result{}
	for _, step := range []struct {
		name     string
		of       tree
		old, new int64
		origin   string
		spoil    func(string) string
	}{
		{"unknown log", right, 0, 3, "unknown.example/log", nil},
		{"another's signature", right, 0, 3, signer.Name(), func(body string) string {
			return body[:len(body)-8] + flipped(body[len(body)-8]) + body[len(body)-7:]
		}},
		{"first", right, 0, 3, signer.Name(), nil},
		{"again", right, 3, 3, signer.Name(), nil},
		{"grown", right, 3, 8, signer.Name(), nil},
		{"stale", right, 3, 9, signer.Name(), nil},
		{"rolled back", right, 8, 5, signer.Name(), nil},
		{"forked", forked, 8, 12, signer.Name(), nil},
		{"forked, same size", forked, 8, 8, signer.Name(), nil},
		{"a flipped proof", right, 8, 12, signer.Name(), func(body string) string {
			at := strings.Index(body, "\n") + 1
			return body[:at] + flipped(body[at]) + body[at+1:]
		}},
		{"no number", right, 8, 12, signer.Name(), func(body string) string { return "old x" + body[len("old 8"):] }},
		{"right after all", right, 8, 12, signer.Name(), nil},
	} {
		by := signer
		if step.origin != signer.Name() {
			skey, _, err := note.GenerateKey(rand.Reader, step.origin)
			if err != nil {
				return nil, err
			}
			if by, err = note.NewSigner(skey); err != nil {
				return nil, err
			}
		}
		checkpoint, err := a.signed(step.of, step.new, step.origin, by)
		if err != nil {
			return nil, err
		}
		body := fmt.Sprintf("old %d\n", step.old)
		if 0 < step.old && step.old < step.new {
			path, err := tlog.ProveTree(step.new, step.old, step.of)
			if err != nil {
				return nil, err
			}
			for _, hash := range path {
				body += hash.String() + "\n"
			}
		}
		body += "\n" + checkpoint
		if step.spoil != nil {
			body = step.spoil(body)
		}
		if said[step.name], err = a.post(body, checkpoint); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return said, nil
}

// flipped is another character of base64.
func flipped(one byte) string {
	if one == 'A' {
		return "B"
	}
	return "A"
}
