weir_fuzz(text SOURCES fuzz/fuzz_text.c NEEDS base)
weir_test(unit sys_loop SOURCES unit/sys/test_loop.c NEEDS sys)
weir_test(unit sys_fs SOURCES unit/sys/test_fs.c NEEDS sys memfs)
weir_test(unit sys_memfs SOURCES unit/sys/test_memfs.c NEEDS sys memfs)
