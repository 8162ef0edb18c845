// Gopeer is what other people's C2SP libraries make of our log and witness, for tests and the benchmark:
//
//	gopeer read URL LOGVKEY WITNESSVKEY [OLDCHECKPOINT]   a log's checkpoint, tiles and proofs (torchwood, tlog, note, merkle)
//	gopeer prove LOGVKEY WITNESSVKEY ENTRY PROOF          an entry's tlog-proof (merkle, note)
//	gopeer ask URL SKEY WITNESSVKEY                       what a witness answers to a log (tlog, note)
//	gopeer log DIR SKEY POLICY COUNT WRITERS BYTES        a log of Tessera's, on POSIX files, and how long it takes
//
// It prints one JSON object and exits with 0, or says on standard error what did not verify and exits with 1.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type result map[string]any

func main() {
	commands := map[string]struct {
		least, most int
		run         func([]string) (result, error)
	}{"read": {3, 4, read}, "prove": {4, 4, prove}, "ask": {3, 3, ask}, "log": {6, 6, tesseraLog}}
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: gopeer read|prove|ask|log ..."))
	}
	command, known := commands[os.Args[1]]
	words := os.Args[2:]
	if !known || len(words) < command.least || len(words) > command.most {
		fail(fmt.Errorf("no such call: %q", os.Args[1:]))
	}
	said, err := command.run(words)
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
