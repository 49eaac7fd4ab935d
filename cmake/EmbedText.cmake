# cmake -DOUTPUT=x.cc -DNAMESPACE=name -DFILES="a.cl;b.cl" -P EmbedText.cmake
# Writes a source file with one string constant for each text file: name::a for a.cl.
set(text "// Made by cmake/EmbedText.cmake.\n#include <string_view>\n\nnamespace ${NAMESPACE} {\n\n")
foreach(file ${FILES})
  get_filename_component(name ${file} NAME_WE)
  file(READ ${file} contents)
  string(APPEND text "extern const std::string_view ${name};\nconst std::string_view ${name} = R\"~~~~(${contents})~~~~\";\n\n")
endforeach()
string(APPEND text "}  // namespace ${NAMESPACE}\n")
file(WRITE ${OUTPUT} "${text}")
