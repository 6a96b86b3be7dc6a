weir_fuzz(text SOURCES fuzz/fuzz_text.c NEEDS base)
weir_test(unit sys_loop SOURCES unit/sys/test_loop.c NEEDS sys)
