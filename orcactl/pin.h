/* First contact with a cluster's API over TLS: the CA is fetched from the server's own chain, and believed for its SHA-256, which the one who
 * made the cluster was told (`orcactl init` prints it) and passed on by another way.
 *
 * What is kept is the CA's certificate (context.h): from then on it is the only root that orcactl trusts for that cluster, and the server's name
 * is checked as anywhere else.
 * Threads: none; blocks up to ten seconds. */
#ifndef ORCA_ORCACTL_PIN_H
#define ORCA_ORCACTL_PIN_H

#include <stdint.h>

#include "common/err.h"

/* expected_sha256: 64 hex digits, in any case; NULL: any CA is taken, and the caller asks the user whether ret_hash is it. The server's certificate
 * must be the CA's, for `host`, and valid now. *ret_pem: the CA's certificate, the caller frees. ret_hash gets the CA's hash also when it is not
 * the expected one ("" when there was none).
 * ERR_UNAVAILABLE no connection, ERR_DENIED another CA than expected, ERR_INVALID no usable chain. */
int pin_fetch_ca(const char *host, uint16_t port, const char *expected_sha256, char **ret_pem, char ret_hash[65], struct err *err);

/* Of a kept CA: -1 when it is no certificate. */
int pin_of_pem(const char *pem, char ret_hash[65]);

#endif
