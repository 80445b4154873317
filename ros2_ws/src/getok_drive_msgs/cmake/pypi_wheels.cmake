# Lets this package build against ROS 2 from PyPI wheels (no effect on a ROS 2 from apt or source).
#
# The wheels' export files carry the include directory of the Python they were built with (/opt/python/cp3xx/...), which does
# not exist elsewhere and stops CMake's generate step. Once the project has been read, every such directory on an imported
# target is replaced by this Python's. Use: cmake -DCMAKE_PROJECT_INCLUDE=<this file> ...

function(getok_mend_wheel_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    foreach(property INTERFACE_INCLUDE_DIRECTORIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES)
      get_target_property(directories ${target} ${property})
      if(directories)
        list(TRANSFORM directories REPLACE "^/opt/python/.*" "${Python3_INCLUDE_DIRS}")
        set_target_properties(${target} PROPERTIES ${property} "${directories}")
      endif()
    endforeach()
  endforeach()
endfunction()

cmake_language(DEFER CALL getok_mend_wheel_includes)
