"""Measures proxies that do the same job, each alone, in turn.

    command    the command line, and the course of a run
    peers      the proxies and the upstream: how each is configured, started and checked
    envoy      fetches the one peer that Debian does not have
    scenarios  what is measured, and how
    held       the two scenarios about memory: idle connections, and 1 GiB bodies
    load       the load generators, read by what they print
    openloop   a load generator with a fixed rate
    sink       an upstream that reads an upload to its end
    system     processes, their time and memory, and the machine
    report     medians, the table and the raw file
    against    an operator's own endpoints, direct and through a proxy

The mistake to avoid everywhere is to compare what was not measured alike: so a peer runs only while
it is measured, everything is repeated in rounds whose order rotates, and a measurement in which a
single request failed is void.
"""
