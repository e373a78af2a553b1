/* In a file of its own: who looks at no certificate is not linked with OpenSSL. */
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/doctor/probe.h"

void doctor_look_at_pem(struct doctor_report *r, const char *what, const char *path, int64_t now_s) {
  FILE *f = fopen(path, "re");
  if (!f) {
    if (errno != ENOENT)
      doctor_check_certificate(r, what, 0, now_s, strerror(errno));
    return;
  }
  X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
  fclose(f);
  struct tm tm;
  if (!cert || ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1)
    doctor_check_certificate(r, what, 0, now_s, "it holds no certificate");
  else
    doctor_check_certificate(r, what, (int64_t)timegm(&tm), now_s, "");
  X509_free(cert);
}
