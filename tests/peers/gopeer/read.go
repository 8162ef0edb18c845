package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"filippo.io/torchwood"
	"github.com/transparency-dev/formats/log"
	cosignature "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// open verifies a checkpoint by the log's signature and the witness's cosignature, both of which it must have.
func open(signed []byte, logKey, witnessKey string) (torchwood.Checkpoint, int64, error) {
	var none torchwood.Checkpoint
	theirs, err := note.NewVerifier(logKey)
	if err != nil {
		return none, 0, fmt.Errorf("log key: %w", err)
	}
	witness, err := cosignature.NewVerifierForCosignatureV1(witnessKey)
	if err != nil {
		return none, 0, fmt.Errorf("witness key: %w", err)
	}
	opened, err := note.Open(signed, note.VerifierList(theirs, witness))
	if err != nil {
		return none, 0, fmt.Errorf("checkpoint: %w", err)
	}
	times := int64(-1)
	for _, one := range opened.Sigs {
		if one.Hash == witness.KeyHash() && one.Name == witness.Name() {
			if times, err = torchwood.CosignatureTimestamp(one); err != nil {
				return none, 0, err
			}
		}
	}
	if len(opened.Sigs) != 2 || times < 0 {
		return none, 0, fmt.Errorf("checkpoint: %d signatures by log and witness", len(opened.Sigs))
	}
	checkpoint, err := torchwood.ParseCheckpoint(opened.Text)
	if err != nil {
		return none, 0, fmt.Errorf("checkpoint: %w", err)
	}
	again, _, _, err := log.ParseCheckpoint(signed, theirs.Name(), theirs, witness)
	if err != nil {
		return none, 0, fmt.Errorf("checkpoint, by formats: %w", err)
	}
	if again.Size != uint64(checkpoint.N) || !bytes.Equal(again.Hash, checkpoint.Hash[:]) {
		return none, 0, fmt.Errorf("two libraries read two checkpoints")
	}
	return checkpoint, times, nil
}

func read(words []string) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fetcher, err := torchwood.NewTileFetcher(words[0], torchwood.WithHTTPClient(&http.Client{Timeout: 5 * time.Second}))
	if err != nil {
		return nil, err
	}
	signed, err := fetcher.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		return nil, err
	}
	checkpoint, cosigned, err := open(signed, words[1], words[2])
	if err != nil {
		return nil, err
	}
	client, err := torchwood.NewClient(fetcher)
	if err != nil {
		return nil, err
	}
	digests := []string{}
	for int64(len(digests)) < checkpoint.N {
		before := len(digests)
		for _, entry := range client.Entries(ctx, checkpoint.Tree, int64(before)) {
			sum := sha256.Sum256(entry)
			digests = append(digests, hex.EncodeToString(sum[:]))
		}
		if err := client.Err(); err != nil {
			return nil, fmt.Errorf("entries: %w", err)
		}
		if len(digests) == before {
			return nil, fmt.Errorf("entries: nothing after %d", before)
		}
	}
	for _, index := range []int64{0, checkpoint.N / 2, checkpoint.N - 1} {
		if _, _, err := client.Entry(ctx, checkpoint.Tree, index); err != nil {
			return nil, fmt.Errorf("inclusion of %d: %w", index, err)
		}
	}
	said := result{"size": checkpoint.N, "origin": checkpoint.Origin, "cosigned": cosigned, "entries": digests}
	if len(words) == 4 {
		old, err := consistent(ctx, words, checkpoint, fetcher)
		if err != nil {
			return nil, err
		}
		said["consistent_from"] = old
	}
	return said, nil
}

func consistent(ctx context.Context, words []string, head torchwood.Checkpoint, tiles torchwood.TileReader) (int64, error) {
	kept, err := os.ReadFile(words[3])
	if err != nil {
		return 0, err
	}
	old, _, err := open(kept, words[1], words[2])
	if err != nil {
		return 0, fmt.Errorf("old %w", err)
	}
	path, err := tlog.ProveTree(head.N, old.N, torchwood.TileHashReaderWithContext(ctx, head.Tree, tiles))
	if err != nil {
		return 0, fmt.Errorf("consistency: %w", err)
	}
	if err := tlog.CheckTree(path, head.N, head.Hash, old.N, old.Hash); err != nil {
		return 0, fmt.Errorf("consistency: %w", err)
	}
	nodes := make([][]byte, len(path))
	for at := range path {
		nodes[at] = path[at][:]
	}
	err = proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old.N), uint64(head.N), nodes, old.Hash[:], head.Hash[:])
	return old.N, err
}

func prove(words []string) (result, error) {
	entry, err := os.ReadFile(words[2])
	if err != nil {
		return nil, err
	}
	said, err := os.ReadFile(words[3])
	if err != nil {
		return nil, err
	}
	head, signed, found := strings.Cut(string(said), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "index ") {
		return nil, fmt.Errorf("not a tlog-proof")
	}
	index, err := strconv.ParseUint(strings.TrimPrefix(lines[1], "index "), 10, 63)
	if err != nil {
		return nil, err
	}
	path := make([][]byte, 0, len(lines))
	for _, line := range lines[2:] {
		hash, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, err
		}
		path = append(path, hash)
	}
	checkpoint, cosigned, err := open([]byte(signed), words[0], words[1])
	if err != nil {
		return nil, err
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(entry)
	err = proof.VerifyInclusion(rfc6962.DefaultHasher, index, uint64(checkpoint.N), leaf, path, checkpoint.Hash[:])
	if err != nil {
		return nil, fmt.Errorf("inclusion: %w", err)
	}
	return result{"index": index, "size": checkpoint.N, "cosigned": cosigned}, nil
}
