"""Which imports a function can reach through the call graph of its module.

Decides reachability and nothing else, from edges that somebody else read.

Rule 1: the answer is an upper bound. Whoever makes the edges adds one for whatever could be a call.
"""

from __future__ import annotations

from collections.abc import Sequence


def reach(edges: Sequence[Sequence[int]], own: Sequence[int]) -> list[int]:
    """For each node the union of the bit sets `own` of all nodes that it can reach, itself included.

    Tarjan's strongly connected components, without recursion: nodes of one component share one answer, and a
    component is complete only after all that it leads to. Linear in nodes and edges.
    """
    count = len(edges)
    found = [0] * count  # the order of discovery, from 1; 0 for unseen
    low = [0] * count
    done = [False] * count
    bits = list(own)
    stack: list[int] = []
    clock = 0
    for root in range(count):
        if found[root]:
            continue
        work = [(root, 0)]
        while work:
            node, place = work.pop()
            if place == 0:
                clock += 1
                found[node] = low[node] = clock
                stack.append(node)
            else:
                child = edges[node][place - 1]
                low[node] = min(low[node], low[child])
                bits[node] |= bits[child]
            ahead = edges[node]
            while place < len(ahead):
                child = ahead[place]
                place += 1
                if not found[child]:
                    work += ((node, place), (child, 0))
                    break
                if not done[child]:
                    low[node] = min(low[node], found[child])
                bits[node] |= bits[child]
            else:
                if low[node] == found[node]:
                    _close(node, stack, done, bits)
    return bits


def _close(head: int, stack: list[int], done: list[bool], bits: list[int]) -> None:
    members = [stack.pop()]
    while members[-1] != head:
        members.append(stack.pop())
    union = 0
    for member in members:
        union |= bits[member]
        done[member] = True
    for member in members:
        bits[member] = union
