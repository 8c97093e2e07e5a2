"""The benchmark: throughput, time per stage and memory, alone and against peers."""
