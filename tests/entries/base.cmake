weir_fuzz(text SOURCES fuzz/fuzz_text.c NEEDS base)
