// out[i] = what the program at code[i % programs][16] computes of x[i]: a switch, and a stack in local memory. Threads of a warp run
// different programs of different length. 0 ends, 1 pushes x, 2 the index, 3 doubles the top, 4 adds, 5 subtracts, 6 multiplies, 7 turns
// bits, 8 drops into the place below.

extern "C" __global__ void stack_machine(const unsigned char *__restrict__ code, const unsigned int *__restrict__ x,
                                         unsigned int *__restrict__ out, int programs, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    unsigned int stack[8];
    int top = -1;
    for (const unsigned char *next = code + i % programs * 16; *next != 0; next++) {
        switch (*next) {
        case 1: stack[++top] = x[i]; break;
        case 2: stack[++top] = i; break;
        case 3: stack[top + 1] = stack[top]; top++; break;
        case 4: top--; stack[top] += stack[top + 1]; break;
        case 5: top--; stack[top] -= stack[top + 1]; break;
        case 6: top--; stack[top] *= stack[top + 1]; break;
        case 7: stack[top] = __brev(stack[top]); break;
        case 8: top--; stack[top] = stack[top + 1]; break;
        }
    }
    out[i] = stack[top];
}
