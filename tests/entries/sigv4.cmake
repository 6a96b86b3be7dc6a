weir_test(unit sigv4 SOURCES unit/sigv4/test_sigv4.c NEEDS sigv4)
