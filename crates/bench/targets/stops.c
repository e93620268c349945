// cc: -O2
// Runs into an int3 for ever.
int main(void) {
    for (;;)
        __asm__ volatile("int3");
}
