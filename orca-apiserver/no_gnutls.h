/* GnuTLS stays asleep.
 *
 * libmicrohttpd starts it for TLS of its own, which we never use (the API's TLS is orca-proxy's), at the price of a megabyte and a third of the
 * start-up time. These stand in front of GnuTLS's own functions, which the dynamic linker allows; __attribute__((used)) because nobody here calls
 * them. Included by exactly one file: main.c. */
#ifndef ORCA_APISERVER_NO_GNUTLS_H
#define ORCA_APISERVER_NO_GNUTLS_H

int gnutls_global_init(void);
void gnutls_global_deinit(void);
int _gnutls_global_init_skip(void); /* NOLINT: GnuTLS's name; asked by its constructor */

__attribute__((used)) int gnutls_global_init(void) {
  return 0;
}

__attribute__((used)) void gnutls_global_deinit(void) {}

__attribute__((used)) int _gnutls_global_init_skip(void) { /* NOLINT */
  return 1;
}

#endif
