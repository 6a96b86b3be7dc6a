weir_bench(spike_journal SOURCES spike_journal.c LIBRARIES Threads::Threads)
