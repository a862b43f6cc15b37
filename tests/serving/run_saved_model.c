/* Answers one image file with the loader that TensorFlow Serving uses, and without Python:
 *   run_saved_model FOLDER INPUT OUTPUT OUTPUT_INDEX FILE...
 * INPUT and OUTPUT are the operations that the signature names. Prints the float scores, one file a line. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <tensorflow/c/c_api.h>
#include <tensorflow/c/tf_tstring.h>

static void check(TF_Status *status) {
    if (TF_GetCode(status) != TF_OK) {
        fprintf(stderr, "%s\n", TF_Message(status));
        exit(1);
    }
}

static void read_file(const char *path, TF_TString *bytes) {
    FILE *file = fopen(path, "rb");
    char buffer[65536];
    size_t count;
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    TF_TString_Init(bytes);
    while ((count = fread(buffer, 1, sizeof buffer, file)) > 0) {
        TF_TString_AppendN(bytes, buffer, count);
    }
    fclose(file);
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "usage: %s FOLDER INPUT OUTPUT OUTPUT_INDEX FILE...\n", argv[0]);
        return 2;
    }
    const char *tags[] = {"serve"};
    int64_t count = argc - 5;
    TF_Status *status = TF_NewStatus();
    TF_Graph *graph = TF_NewGraph();
    TF_SessionOptions *options = TF_NewSessionOptions();
    TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
    check(status);

    TF_Output input = {TF_GraphOperationByName(graph, argv[2]), 0};
    TF_Output output = {TF_GraphOperationByName(graph, argv[3]), atoi(argv[4])};
    if (input.oper == NULL || output.oper == NULL) {
        fprintf(stderr, "no operation %s\n", input.oper == NULL ? argv[2] : argv[3]);
        return 1;
    }
    TF_Tensor *files = TF_AllocateTensor(TF_STRING, &count, 1, count * sizeof(TF_TString));
    for (int64_t i = 0; i < count; i++) {
        read_file(argv[5 + i], (TF_TString *)TF_TensorData(files) + i);
    }
    TF_Tensor *result = NULL;
    TF_SessionRun(session, NULL, &input, &files, 1, &output, &result, 1, NULL, 0, NULL, status);
    check(status);

    const float *scores = TF_TensorData(result);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < TF_Dim(result, 1); j++) {
            printf("%.9g ", *scores++);
        }
        printf("\n");
    }
    TF_DeleteTensor(result);
    TF_CloseSession(session, status);
    check(status);
    return 0;
}
