// cc: -O2 -fPIC
// A module of 256 functions with frames of several shapes.
#include <string.h>

#define FUNCTION(n) \
    int function##n(const char *s, int x) { \
        char buffer[64 + (n & 7) * 32]; \
        int y = n; \
        strncpy(buffer, s, sizeof buffer); \
        for (int i = 0; i < x; i++) \
            y += buffer[(i * x + y) & 63] * (int)strlen(buffer); \
        return y; \
    }
#define FOUR(n) FUNCTION(n##0) FUNCTION(n##1) FUNCTION(n##2) FUNCTION(n##3)
#define SIXTEEN(n) FOUR(n##0) FOUR(n##1) FOUR(n##2) FOUR(n##3)
#define SIXTY_FOUR(n) SIXTEEN(n##0) SIXTEEN(n##1) SIXTEEN(n##2) SIXTEEN(n##3)
SIXTY_FOUR(1) SIXTY_FOUR(2) SIXTY_FOUR(3) SIXTY_FOUR(4)
