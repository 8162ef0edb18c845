package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// How Tessera is set for an answer as early as it allows: batches wait for a millisecond at most, and checkpoints come
// as often as its POSIX storage lets them.
const (
	batchAge           = time.Millisecond
	checkpointInterval = 100 * time.Millisecond
	poll               = time.Millisecond
)

// tesseraLog appends from so many writers, each with one entry in flight. For each entry it notes, in milliseconds,
// when its index was durable and when there was an inclusion proof for it under a published checkpoint.
func tesseraLog(words []string) (result, error) {
	var numbers [3]int
	for at := range numbers {
		number, err := strconv.Atoi(words[3+at])
		if err != nil || number < 1 {
			return nil, fmt.Errorf("not a number of entries, writers or bytes: %q", words[3+at])
		}
		numbers[at] = number
	}
	count, writers, size := numbers[0], numbers[1], numbers[2]
	signer, err := note.NewSigner(words[1])
	if err != nil {
		return nil, err
	}
	policy, err := os.ReadFile(words[2])
	if err != nil {
		return nil, err
	}
	witnesses, err := tessera.NewWitnessGroupFromPolicy(policy)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	driver, err := posix.New(ctx, posix.Config{Path: words[0]})
	if err != nil {
		return nil, err
	}
	options := tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(uint(writers), batchAge).
		WithCheckpointInterval(checkpointInterval).WithWitnesses(witnesses, nil)
	appender, shutdown, reader, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		return nil, err
	}
	awaiter := tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, poll)
	indexed, proved := make([]float64, count), make([]float64, count)
	failures := make(chan error, writers)
	var group sync.WaitGroup
	begin := time.Now()
	for writer := range writers {
		group.Go(func() {
			for number := writer; number < count; number += writers {
				data := fmt.Appendf(nil, "%0*d", size, number)
				if err := appendOne(ctx, appender, awaiter, reader, data, &indexed[number], &proved[number]); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	group.Wait()
	took := time.Since(begin)
	close(failures)
	if err := <-failures; err != nil {
		return nil, err
	}
	published, err := reader.ReadCheckpoint(ctx)
	if err != nil {
		return nil, err
	}
	if err := shutdown(ctx); err != nil {
		return nil, err
	}
	return result{
		"seconds": took.Seconds(), "indexed_ms": indexed, "proved_ms": proved, "checkpoint": string(published),
	}, nil
}

func appendOne(
	ctx context.Context, appender *tessera.Appender, awaiter *tessera.PublicationAwaiter, reader tessera.LogReader,
	data []byte, indexed, proved *float64,
) error {
	begin := time.Now()
	future := appender.Add(ctx, tessera.NewEntry(data))
	if _, err := future(); err != nil {
		return err
	}
	*indexed = time.Since(begin).Seconds() * 1e3
	index, signed, err := awaiter.Await(ctx, future)
	if err != nil {
		return err
	}
	// Which log signed it is not in question here: it is ours, in this process.
	var checkpoint log.Checkpoint
	if _, err := checkpoint.Unmarshal([]byte(strings.SplitAfterN(string(signed), "\n\n", 2)[0])); err != nil {
		return err
	}
	builder, err := client.NewProofBuilder(ctx, checkpoint.Size, reader.ReadTile)
	if err != nil {
		return err
	}
	path, err := builder.InclusionProof(ctx, index.Index)
	if err != nil {
		return err
	}
	*proved = time.Since(begin).Seconds() * 1e3
	leaf := rfc6962.DefaultHasher.HashLeaf(data)
	return proof.VerifyInclusion(rfc6962.DefaultHasher, index.Index, checkpoint.Size, leaf, path, checkpoint.Hash)
}
