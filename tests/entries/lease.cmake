weir_test(unit lease SOURCES unit/lease/test_lease.c NEEDS lease memfs)
weir_fuzz(rows SOURCES fuzz/fuzz_rows.c NEEDS lease stream)
